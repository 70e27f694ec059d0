"From numbers to what is looked at."
