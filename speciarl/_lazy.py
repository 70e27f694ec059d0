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


def moved(old: str, *new: str, depth: int = 2) -> Callable[[str], Any]:
    """The `__getattr__` of a module `old` whose names live in the modules `new` now: found for one release, with a warning.

    The warning names the line of whoever asked; `depth` is 3 where a function stands between."""

    def look_up(name: str) -> Any:
        for home in () if name.startswith("__") else new:
            module = import_module(home)
            if hasattr(module, name):
                advice = f"use {home}.{name}; the old name goes with the next release"
                warn(f"{old}.{name} moved: {advice}", DeprecationWarning, depth)
                return getattr(module, name)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return look_up
