"""Specific without being wrong: judge, rewards, metrics and trainers for open-world image classification.

What stands here is enough for daily use and loads nothing until it is used; everything else is in the rooms
(`speciarl.core`, `data`, `judges`, `policy`, `metrics`, `report`, `training`, `fine_r1`, `compendium`, `cli`)."""

__version__ = "0.1.0"

from typing import TYPE_CHECKING

from ._lazy import attach

if TYPE_CHECKING:
    from .core.scale import Category as Category
    from .core.scale import UserError as UserError
    from .data.sets import read_data as read_data
    from .data.trees import load_tree as load_tree
    from .fine_r1.methods import train as train
    from .judges.choose import CascadeJudge as CascadeJudge
    from .judges.llm import LLMJudge as LLMJudge
    from .judges.store import open_store as open_store
    from .judges.tree import TreeJudge as TreeJudge
    from .policy.model import load_policy as load_policy
    from .policy.server import make_engine as make_engine
    from .report.asking import evaluate as evaluate
    from .report.asking import show as show
    from .report.face import compare as compare
    from .report.face import grpo_dataset as grpo_dataset
    from .report.face import judge as judge
    from .report.face import plot as plot
    from .report.face import score as score
    from .training.recipe import load_recipe as load_recipe
    from .training.reward import SpecificityReward as SpecificityReward

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Category": "speciarl.core.scale",
        "UserError": "speciarl.core.scale",
        "judge": "speciarl.report.face",
        "score": "speciarl.report.face",
        "compare": "speciarl.report.face",
        "plot": "speciarl.report.face",
        "grpo_dataset": "speciarl.report.face",
        "TreeJudge": "speciarl.judges.tree",
        "LLMJudge": "speciarl.judges.llm",
        "CascadeJudge": "speciarl.judges.choose",
        "open_store": "speciarl.judges.store",
        "load_tree": "speciarl.data.trees",
        "read_data": "speciarl.data.sets",
        "load_policy": "speciarl.policy.model",
        "make_engine": "speciarl.policy.server",
        "evaluate": "speciarl.report.asking",
        "show": "speciarl.report.asking",
        "SpecificityReward": "speciarl.training.reward",
        "load_recipe": "speciarl.training.recipe",
        "train": "speciarl.fine_r1.methods",
    },
)
