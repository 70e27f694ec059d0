"From a label and an answer to one of six levels."

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from .choose import CascadeJudge as CascadeJudge
    from .choose import JudgeSpec as JudgeSpec
    from .choose import StoredJudge as StoredJudge
    from .choose import judge_card as judge_card
    from .choose import make_judge as make_judge
    from .llm import JudgeUnavailable as JudgeUnavailable
    from .llm import LLMJudge as LLMJudge
    from .prompt import JudgePrompt as JudgePrompt
    from .prompt import judge_prompts as judge_prompts
    from .prompt import load_judge_prompt as load_judge_prompt
    from .store import Store as Store
    from .store import open_store as open_store
    from .tree import TreeJudge as TreeJudge
    from .verdict import Judge as Judge
    from .verdict import Verdict as Verdict
    from .verdict import judge_rows as judge_rows
    from .verdict import read_verdicts as read_verdicts
    from .verdict import verdict_codes as verdict_codes
    from .verdict import write_verdicts as write_verdicts

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Verdict": "speciarl.judges.verdict",
        "Judge": "speciarl.judges.verdict",
        "judge_rows": "speciarl.judges.verdict",
        "read_verdicts": "speciarl.judges.verdict",
        "write_verdicts": "speciarl.judges.verdict",
        "verdict_codes": "speciarl.judges.verdict",
        "TreeJudge": "speciarl.judges.tree",
        "JudgePrompt": "speciarl.judges.prompt",
        "judge_prompts": "speciarl.judges.prompt",
        "load_judge_prompt": "speciarl.judges.prompt",
        "LLMJudge": "speciarl.judges.llm",
        "JudgeUnavailable": "speciarl.judges.llm",
        "Store": "speciarl.judges.store",
        "open_store": "speciarl.judges.store",
        "StoredJudge": "speciarl.judges.choose",
        "CascadeJudge": "speciarl.judges.choose",
        "JudgeSpec": "speciarl.judges.choose",
        "make_judge": "speciarl.judges.choose",
        "judge_card": "speciarl.judges.choose",
    },
)
