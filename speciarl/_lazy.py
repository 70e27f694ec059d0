"Names that are loaded when they are first asked for (PEP 562), and names that moved."

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any
from warnings import warn


def attach(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    "The `__getattr__`, `__dir__` and `__all__` of a package whose public names lie in modules: name -> module."

    def look_up(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return look_up, lambda: sorted(homes), list(homes)


def moved(old: str, new: str) -> Callable[[str], Any]:
    "The `__getattr__` of a module `old` whose names live in the module `new` now: they are found for one release, with a warning."

    def look_up(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        found = getattr(import_module(new), name)
        warn(f"{old}.{name} moved: use {new}.{name}; the old name goes with the next release", DeprecationWarning, 2)
        return found

    return look_up
