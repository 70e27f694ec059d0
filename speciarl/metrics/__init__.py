"From verdicts to numbers."

from typing import Any

from .._lazy import attach, moved

# `rates` and `compare` are not among them: their modules have the same names.
public, __dir__, __all__ = attach(
    __name__,
    {
        "Scores": "speciarl.metrics.rates",
        "WEIGHTS": "speciarl.metrics.rates",
        "best_of_k_curve": "speciarl.metrics.rates",
        "best_of_n": "speciarl.metrics.rates",
        "harmonic_mean": "speciarl.metrics.rates",
        "pass_at_k_curve": "speciarl.metrics.rates",
        "s_c_hm": "speciarl.metrics.rates",
        "score": "speciarl.metrics.rates",
        "bootstrap": "speciarl.metrics.resampling",
        "headroom": "speciarl.metrics.resampling",
        "intervals": "speciarl.metrics.resampling",
        "level_table": "speciarl.metrics.resampling",
        "calibration_error": "speciarl.metrics.selection",
        "consensus": "speciarl.metrics.selection",
        "majority_answer": "speciarl.metrics.selection",
        "read_answers": "speciarl.metrics.selection",
        "risk_coverage": "speciarl.metrics.selection",
        "selection_table": "speciarl.metrics.selection",
        "by_group": "speciarl.metrics.compare",
        "compare_all": "speciarl.metrics.compare",
        "differences": "speciarl.metrics.compare",
        "holm": "speciarl.metrics.compare",
        "mcnemar": "speciarl.metrics.compare",
        "open_world": "speciarl.metrics.openworld",
        "compare_runs": "speciarl.metrics.matrix",
        "evaluate": "speciarl.metrics.runs",
        "list_runs": "speciarl.metrics.matrix",
        "run_benchmark": "speciarl.metrics.runs",
    },
)
# what else the module of this name held
old = moved("speciarl.metrics", "speciarl.metrics.rates", "speciarl.metrics.resampling", depth=3)


def __getattr__(name: str) -> Any:
    return public(name) if name in __all__ else old(name)
