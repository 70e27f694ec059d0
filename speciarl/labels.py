"Moved to `speciarl.data.trees` and `speciarl.core.names`; goes with the next release."

from ._lazy import moved

__getattr__ = moved("speciarl.labels", "speciarl.data.trees", "speciarl.core.names")
