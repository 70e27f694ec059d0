"From verdicts to numbers."
