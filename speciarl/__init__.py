"""Specific without being wrong: judge, rewards, metrics and trainers for open-world image classification.

What stands here is enough for daily use and loads nothing until it is used; everything else is in the rooms
(`speciarl.core`, `data`, `judges`, `policy`, `metrics`, `report`, `training`, `fine_r1`, `compendium`, `cli`)."""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.scale import Category as Category
    from .core.scale import UserError as UserError
    from .data.trees import load_tree as load_tree
    from .fine_r1.methods import train as train
    from .judges.choose import CascadeJudge as CascadeJudge
    from .judges.llm import LLMJudge as LLMJudge
    from .judges.store import open_store as open_store
    from .judges.tree import TreeJudge as TreeJudge
    from .metrics.runs import evaluate as evaluate
    from .metrics.runs import read_data as read_data
    from .policy.engines import make_engine as make_engine
    from .policy.model import load_policy as load_policy
    from .training.recipe import load_recipe as load_recipe
    from .training.reward import SpecificityReward as SpecificityReward

_HOME = {  # name of the public face -> module that holds it
    "Category": "core.scale",
    "UserError": "core.scale",
    "TreeJudge": "judges.tree",
    "LLMJudge": "judges.llm",
    "CascadeJudge": "judges.choose",
    "open_store": "judges.store",
    "load_tree": "data.trees",
    "read_data": "metrics.runs",
    "load_policy": "policy.model",
    "make_engine": "policy.engines",
    "evaluate": "metrics.runs",
    "SpecificityReward": "training.reward",
    "load_recipe": "training.recipe",
    "train": "fine_r1.methods",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    "A name of the public face, from its module, loaded when it is first asked for (PEP 562)."
    if name in _HOME:
        found = globals()[name] = getattr(import_module(f"speciarl.{_HOME[name]}"), name)
        return found
    raise AttributeError(f"module 'speciarl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
