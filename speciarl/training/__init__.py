"From groups of answers to a better policy."

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .loop import Way as Way
    from .loop import train as train
    from .recipe import Recipe as Recipe
    from .recipe import batch_sizes as batch_sizes
    from .recipe import load_recipe as load_recipe
    from .reward import SpecificityReward as SpecificityReward
    from .rules import RULES as RULES
    from .rules import Rule as Rule
    from .rules import advantages as advantages
    from .rules import find_rule as find_rule
    from .rules import register as register
    from .settings import grpo_config as grpo_config
    from .settings import make_reward as make_reward
    from .settings import make_trainer as make_trainer
    from .settings import sft_config as sft_config
    from .settings import training_rows as training_rows
    from .settings import training_samples as training_samples
    from .trainer import LabelTrainer as LabelTrainer
    from .trainer import SpecificityTrainer as SpecificityTrainer

# `reward` and `plan` are not among them: their modules have the same names.
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Rule": "speciarl.training.rules",
        "RULES": "speciarl.training.rules",
        "register": "speciarl.training.rules",
        "find_rule": "speciarl.training.rules",
        "advantages": "speciarl.training.rules",
        "SpecificityReward": "speciarl.training.reward",
        "Recipe": "speciarl.training.recipe",
        "load_recipe": "speciarl.training.recipe",
        "batch_sizes": "speciarl.training.recipe",
        "SpecificityTrainer": "speciarl.training.trainer",
        "LabelTrainer": "speciarl.training.trainer",
        "training_samples": "speciarl.training.settings",
        "training_rows": "speciarl.training.settings",
        "make_reward": "speciarl.training.settings",
        "make_trainer": "speciarl.training.settings",
        "grpo_config": "speciarl.training.settings",
        "sft_config": "speciarl.training.settings",
        "Way": "speciarl.training.loop",
        "train": "speciarl.training.loop",
    },
)
