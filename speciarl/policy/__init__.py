"Who is asked, and asking."

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .base import train_base as train_base
    from .engines import Engine as Engine
    from .engines import Sampling as Sampling
    from .engines import TransformersEngine as TransformersEngine
    from .engines import VLLMEngine as VLLMEngine
    from .model import Policy as Policy
    from .model import load_policy as load_policy
    from .predictions import Predictions as Predictions
    from .predictions import read_predictions as read_predictions
    from .predictions import write_predictions as write_predictions
    from .prompts import Prompt as Prompt
    from .prompts import load_prompt as load_prompt
    from .prompts import load_question as load_question
    from .server import ServerEngine as ServerEngine
    from .server import make_engine as make_engine

# `predict` is not among them: its module has the same name, and is what `speciarl.policy.predict` means.
__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Prompt": "speciarl.policy.prompts",
        "load_prompt": "speciarl.policy.prompts",
        "load_question": "speciarl.policy.prompts",
        "Policy": "speciarl.policy.model",
        "load_policy": "speciarl.policy.model",
        "Engine": "speciarl.policy.engines",
        "Sampling": "speciarl.policy.engines",
        "ServerEngine": "speciarl.policy.server",
        "TransformersEngine": "speciarl.policy.engines",
        "VLLMEngine": "speciarl.policy.engines",
        "make_engine": "speciarl.policy.server",
        "Predictions": "speciarl.policy.predictions",
        "read_predictions": "speciarl.policy.predictions",
        "write_predictions": "speciarl.policy.predictions",
        "train_base": "speciarl.policy.base",
    },
)
