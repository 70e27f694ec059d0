"From numbers to what is looked at."

from .._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "Bounds": "speciarl.report.table",
        "Interval": "speciarl.report.table",
        "Levels": "speciarl.report.table",
        "Table": "speciarl.report.table",
        "Triple": "speciarl.report.table",
        "make_record": "speciarl.report.table",
        "write_table": "speciarl.report.table",
        "LEVEL_COLOURS": "speciarl.report.figures",
        "drawing": "speciarl.report.figures",
        "example_panel": "speciarl.report.figures",
        "plot_curve": "speciarl.report.figures",
        "plot_levels": "speciarl.report.figures",
        "plot_pass": "speciarl.report.figures",
        "plot_risk": "speciarl.report.figures",
        "save_figure": "speciarl.report.figures",
        "specificity_correctness_plane": "speciarl.report.figures",
        "training_curves": "speciarl.report.figures",
        "PUBLISHED": "speciarl.report.tables",
        "group_table": "speciarl.report.tables",
        "method_table": "speciarl.report.tables",
        "openworld_table": "speciarl.report.tables",
        "paired_table": "speciarl.report.tables",
        "risk_table": "speciarl.report.tables",
        "sampling_table": "speciarl.report.tables",
        "selector_table": "speciarl.report.tables",
        "write_page": "speciarl.report.page",
        "ScoreReport": "speciarl.report.scores",
        "score_report": "speciarl.report.scores",
        "base_scores": "speciarl.report.calibration",
    },
)
