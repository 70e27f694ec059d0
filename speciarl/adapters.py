"Moved to `speciarl.training.reward`; goes with the next release."

from ._lazy import moved

__getattr__ = moved("speciarl.adapters", "speciarl.training.rules", "speciarl.training.reward")
