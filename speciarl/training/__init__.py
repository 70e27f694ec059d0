"From groups of answers to a better policy."
