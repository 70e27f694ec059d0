"Moved to `speciarl.data.trees`; goes with the next release."

from ._lazy import moved

__getattr__ = moved("speciarl.labels", "speciarl.data.trees")
