"Moved to `speciarl.judges.tree`; goes with the next release."

from ._lazy import moved

__getattr__ = moved("speciarl.tree_judge", "speciarl.judges.tree")
