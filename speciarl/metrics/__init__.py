"From verdicts to numbers."

from .._lazy import moved

__getattr__ = moved("speciarl.metrics", "speciarl.metrics.rates")  # what the module of this name held
