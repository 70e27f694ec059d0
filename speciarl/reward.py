"Moved to `speciarl.training.rules`; goes with the next release."

from ._lazy import moved

__getattr__ = moved("speciarl.reward", "speciarl.training.rules")
