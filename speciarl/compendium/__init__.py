"The paper, made again."
