"From a label and an answer to one of six levels."
