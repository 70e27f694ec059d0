"""Tables and figures: formats, escapes, records, and the same bytes every time."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from speciarl.core.scale import WIRE_NAMES, UserError
from speciarl.metrics.rates import harmonic_mean, score
from speciarl.metrics.resampling import intervals
from speciarl.report.figures import save_figure, specificity_correctness_plane, training_curves
from speciarl.report.table import (
    Bounds,
    Interval,
    Levels,
    Table,
    Triple,
    escape_latex,
    fmt_interval,
    fmt_number,
    make_record,
    record_id,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
    write_table,
)
from speciarl.report.tables import PUBLISHED, method_table

NAN = float("nan")
CODES = np.random.default_rng(0).choice(6, size=(3, 60), p=[0.15, 0.02, 0.3, 0.15, 0.36, 0.02])


def method_row(method="zero-shot", group="fine-grained", codes=CODES, **more):
    return {"method": method, "group": group, "scores": score(codes, **more), "intervals": intervals(codes, n_boot=50)}


def log(seeds=1, steps=3):
    return [
        {
            "step": step,
            "seed": seed,
            "reward": 0.1 * step + seed,
            **{f"share_{name.replace(' ', '_')}": 1 / 6 for name in WIRE_NAMES},
        }
        for seed in range(seeds)
        for step in range(steps)
    ]


# numbers and cells


@pytest.mark.parametrize(
    "numbers, text",
    [
        ((0.742, 0.701, 0.779), ".742 [.70, .78]"),
        ((1.0, 0.9961, 1.0), "1.000 [1.00, 1.00]"),
        ((0.9996, 0.99, 1.0), "1.000 [.99, 1.00]"),
        ((-0.05, -0.1, 0.0), "-.050 [-.10, .00]"),
        ((NAN, NAN, NAN), "–"),
        ((0.5, NAN, NAN), ".500"),
        ((0.5,), ".500"),
        ((None, 0.1, 0.2), "–"),
    ],
)
def test_fmt_interval(numbers, text):
    assert fmt_interval(*numbers) == text


def test_fmt_number_has_no_minus_zero():
    assert [fmt_number(x) for x in (-0.0001, 0.0, 10.5, 100)] == [".000", ".000", "10.500", "100.000"] and fmt_number(
        41.6, 0
    ) == "42"


def test_cells_that_hold_several_numbers():
    assert str(Interval(0.742, 0.70, 0.78)) == ".742 [.70, .78]" and str(Bounds(0.5, 1.0)) == "[.500, 1.000]"
    assert (
        str(Triple(None, None, 0.83)) == "– / – / .830"
        and str(Levels(0.1, 0.02, 0.4, 0.12, 0.36, 0.0)) == "10/2/40/12/36/0"
    )


# tables

TABLE = Table(
    ["name", "S", "n"],
    [["a|b_1 & 50 %", Interval(0.742, 0.70, 0.78), 3], ["[x]", None, None], ["*", Interval(NAN, NAN, NAN), 10**7]],
    "Cap_tion.",
    "Scale 0 to 1.",
)


def test_markdown():
    assert to_markdown(TABLE) == (
        "| name | S | n |\n| --- | ---: | ---: |\n| a\\|b_1 & 50 % | .742 [.70, .78] | 3 |\n| [x] | – | – |\n| * | – "
        "| 10000000 |\n\n"
        "Table: Cap_tion.\n\nScale 0 to 1.\n"
    )
    assert repr(TABLE) == TABLE._repr_markdown_() == to_markdown(TABLE)


def test_a_notebook_shows_html_with_every_cell_escaped():
    html = TABLE._repr_html_()
    assert html == to_html(TABLE) and ">a|b_1 &amp; 50 %</td>" in html and ">.742 [.70, .78]</td>" in html
    attack = "</td><script>alert(1)</script>"
    hostile = to_html(Table([attack], [[attack]], attack, attack))
    assert "<script" not in hostile and hostile.count("&lt;script&gt;alert(1)") == 4 and hostile.count("</td>") == 1
    assert "<caption" not in to_html(Table(["a"], [])) and "<small" not in to_html(Table(["a"], []))


def test_latex_is_escaped():
    lines = to_latex(TABLE).splitlines()
    assert lines[:6] == [
        r"\begin{table}",
        r"\centering",
        r"\caption{Cap\_tion.}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"name & S & n \\",
    ]
    assert lines[7:10] == [
        r"a|b\_1 \& 50 \% & .742 [.70, .78] & 3 \\",
        r"{}[x] & -- & -- \\",
        r"{}* & -- & 10000000 \\",
    ]
    assert lines[-2:] == [r"\par\smallskip{\footnotesize Scale 0 to 1.}", r"\end{table}"]
    assert (
        escape_latex("\\{~^<>}") == r"\textbackslash{}\{\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\}"
    )


def test_csv_keeps_numbers_and_opens_tuples():
    rows = list(csv.reader(io.StringIO(to_csv(TABLE))))
    assert rows == [
        ["name", "S", "S low", "S high", "n"],
        ["a|b_1 & 50 %", "0.742", "0.7", "0.78", "3"],
        ["[x]", "", "", "", ""],
        ["*", "", "", "", "10000000"],
    ]


def test_ragged_rows_are_refused():
    with pytest.raises(UserError) as caught:
        Table(["a", "b"], [[1]])
    assert str(caught.value) == "a row of the table does not have 2 cells: give one per column (a, b)"


def test_write_table_writes_three_formats_and_the_record(tmp_path):
    record = make_record("4_benchmark", "smoke", {"seeds": 2}, {"verdicts": "0f3a"})
    assert write_table(TABLE, tmp_path / "deep" / "table.v1", record) == record["id"]
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == [
        "table.v1.csv",
        "table.v1.json",
        "table.v1.md",
        "table.v1.tex",
    ]
    assert json.loads((tmp_path / "deep/table.v1.json").read_text()) == record
    assert (tmp_path / "deep/table.v1.md").read_text() == f"{to_markdown(TABLE)}\n<!-- record {record['id']} -->\n"
    assert (tmp_path / "deep/table.v1.tex").read_text() == f"% record {record['id']}\n{to_latex(TABLE)}"
    before = {p.name: p.read_bytes() for p in (tmp_path / "deep").iterdir()}
    write_table(TABLE, tmp_path / "deep" / "table.v1", record)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "deep").iterdir()}


def test_a_folder_that_cannot_be_written():
    with pytest.raises(UserError) as caught:
        write_table(TABLE, "/proc/nowhere/table")
    assert str(caught.value).startswith(
        "cannot write /proc/nowhere/table.json: "
    ) and "choose a folder you may write to" in str(caught.value)


# records


def test_the_record_hashes_files_by_content(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("x"), two.write_text("x")
    assert make_record(inputs={"v": one})["inputs"]["v"] == hashlib.sha256(b"x").hexdigest()
    assert make_record(inputs={"v": one}) == make_record(inputs={"v": two})
    two.write_text("y")
    assert make_record(inputs={"v": one})["id"] != make_record(inputs={"v": two})["id"]


def test_the_id_is_the_hash_of_the_rest():
    record = make_record("n", "smoke", {"b": 1, "a": np.float64(0.5)})
    rest = {key: value for key, value in record.items() if key != "id"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    assert set(record) == {"id", "notebook", "profile", "parameters", "inputs"}
    assert record["id"] == record_id(rest) == hashlib.sha256(canonical.encode()).hexdigest()[:10]


@pytest.mark.parametrize("parameters", [{"x": object()}, {"x": NAN}, {"x": np.zeros(2)}, {"x": Path("x")}])
def test_a_record_holds_plain_values_only(parameters):
    with pytest.raises(UserError) as caught:
        make_record(parameters=parameters)
    assert (
        str(caught.value)
        == "a record can hold only text, finite numbers, lists and mappings: convert the parameters first"
    )


def test_a_record_needs_its_inputs():
    with pytest.raises(UserError) as caught:
        make_record(inputs={"v": Path("nowhere.csv")})
    assert str(caught.value) == "no such input: nowhere.csv; a record needs every input it names"


def test_a_changed_record_cannot_keep_its_old_id(tmp_path):
    record = make_record("n")
    name = write_table(TABLE, tmp_path / "t", {**record, "profile": "laptop"})
    assert name != record["id"] and json.loads((tmp_path / "t.json").read_text())["id"] == name


# the published figures and the table of methods


def test_published_figures_are_consistent():
    assert list(PUBLISHED) == ["zero-shot", "be specific", "SFT", "RFT", "SpeciaRL", "best of 64"]
    for groups in PUBLISHED.values():
        s, c, hm = groups["fine-grained"]
        assert harmonic_mean(s, c) == pytest.approx(hm, abs=0.005)
    assert [PUBLISHED[m]["very fine-grained"].hm for m in ("SFT", "RFT", "SpeciaRL", "best of 64")] == [
        0.814,
        0.821,
        0.830,
        0.868,
    ]


def test_method_table():
    table = method_table([method_row(), method_row("SFT", "birds")], "Cap.", n_seeds=3)
    assert list(table.columns) == ["group", "method", "S", "C", "HM", "published", "levels", "no verdict"]
    first, second = table.rows
    assert first[:2] == ("fine-grained", "zero-shot") and first[5] == Triple(0.742, 0.846, 0.790) and second[5] is None
    assert first[2] == Interval(*intervals(CODES, n_boot=50)["specificity"]) and first[6] == tuple(
        score(CODES).shares.values()
    )
    assert (
        "95 % intervals (bootstrap of images within seeds, 3 seeds)" in table.notes
        and "run from 0 to 1, 1 is best" in table.notes
    )
    assert (
        "weights `released`: more specific 1, specific 1, less specific 0.6, generic 0.2" in table.notes
        and "arXiv 2603.03197" in table.notes
    )


def test_method_table_shows_missing_verdicts_and_format_failures():
    broken = CODES.copy()
    broken[0, :6] = -1
    broken[0, 6] = 0
    row = method_row("best of 16", codes=broken, format_failure=np.arange(broken.size) == 6) | {
        "published": "best of 64"
    }
    table = method_table([method_row(), row], n_seeds=2)
    assert list(table.columns[-3:]) == ["no verdict", "C bounds", "format failures"]
    assert table.rows[0][-3:] == (0.0, None, None)
    assert table.rows[1][-3:] == (
        6 / 180,
        Bounds(row["scores"].correctness_low, row["scores"].correctness_high),
        1 / 174,
    )
    assert table.rows[1][5] == Triple(0.889, 0.984, 0.933) and "bootstrap of images only, 2 seeds" in table.notes


def test_different_weights_do_not_share_a_table():
    with pytest.raises(UserError) as caught:
        method_table(
            [
                method_row(),
                method_row(weights=dict.fromkeys(("generic", "less specific", "specific", "more specific"), 1.0)),
            ]
        )
    assert str(caught.value) == "the rows were scored with different weights: use one preset for a table"


# figures


def test_the_plane_has_a_panel_per_group_and_hollow_published_points():
    points = [
        ("SFT", 0.9, 0.8, None, "fine-grained"),
        ("SpeciaRL", 0.8, 0.9, intervals(CODES, n_boot=50), "fine-grained"),
        ("SFT", 0.7, 0.8, None, "birds"),
    ]
    figure = specificity_correctness_plane(points, PUBLISHED)
    assert [axes.get_title() for axes in figure.axes] == ["fine-grained", "birds"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SFT", "SpeciaRL", "published (hollow)"]
    hollow = [
        (line.get_xdata()[0], line.get_ydata()[0])
        for axes in figure.axes
        for line in axes.lines
        if line.get_markerfacecolor() == "none" and len(line.get_xdata())
    ]
    assert hollow == [(0.935, 0.807), (0.920, 0.848)]
    sft = [line for axes in figure.axes for line in axes.lines if line.get_label() == "SFT"]
    assert len({(line.get_color(), line.get_marker()) for line in sft}) == 1
    assert (
        figure.axes[0].get_xlabel() == "specificity S (0 to 1)"
        and figure.axes[0].get_ylabel() == "correctness C (0 to 1)"
    )


def test_lines_of_equal_hm_are_what_they_say():
    axes = specificity_correctness_plane([("a", 0.3, 0.2, None, "x")]).axes[0]
    for line in [line for line in axes.lines if len(line.get_xdata()) == 200]:
        values = harmonic_mean(line.get_xdata(), line.get_ydata())
        assert (
            np.ptp(values) < 1e-9 and (10 * values[0]).round(6) in range(1, 10) and line.get_ydata().max() <= 1 + 1e-9
        )


def test_training_curves_show_seeds_and_their_mean():
    figure = training_curves({"RFT": log(), "SpeciaRL": log(seeds=3)})
    tops, bottoms = figure.axes[:2], figure.axes[2:]
    assert [axes.get_title() for axes in tops] == ["RFT", "SpeciaRL"]
    assert [len(axes.lines) for axes in bottoms] == [1, 1] and [len(axes.lines) for axes in tops] == [6, 6]
    assert [len(axes.collections) for axes in tops] == [6, 6], "bands from the lowest to the highest seed"
    assert list(bottoms[1].lines[0].get_ydata()) == pytest.approx([1.0, 1.1, 1.2])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(WIRE_NAMES[::-1])
    assert tops[0].get_ylabel() == "share of rollouts (%)"


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: training_curves({"SFT": [{"step": 1, "loss": 0.1}]}),
            "the log of SFT has no reward: draw the curves of runs that log their rewards and level shares",
        ),
        (
            lambda: training_curves({"SFT": []}),
            "the log of SFT has no step: draw the curves of runs that log their rewards and level shares",
        ),
        (lambda: training_curves({}), "nothing to draw: give the log of at least one method"),
        (lambda: specificity_correctness_plane([]), "nothing to draw: give at least one point"),
    ],
)
def test_figure_messages(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value) == message


DRAW = """
import sys
import numpy as np
from speciarl.core.scale import WIRE_NAMES
from speciarl.metrics.resampling import level_table
from speciarl.report.figures import plot_curve, plot_levels, save_figure, specificity_correctness_plane, training_curves
from speciarl.report.table import make_record
from speciarl.report.tables import PUBLISHED
codes = np.random.default_rng(0).choice(6, size=(50, 8))
rows = level_table(codes, ks=[1, 2, 8], n_boot=50)
log = [{"step": s, "seed": k, "reward": 0.1 * s + k, **{"share_" + n.replace(" ", "_"): 1 / 6 for n in WIRE_NAMES}}
       for k in range(2) for s in range(3)]
figures = {"levels": plot_levels({r["answers"]: r["shares"] for r in rows}), "curve": plot_curve(rows),
           "plane": specificity_correctness_plane([("SFT", .9, .8, None, "fine-grained"),
                                                   ("RFT", .7, .7, None, "birds")], PUBLISHED),
           "training": training_curves({"RFT": log})}
for name, figure in figures.items():
    for stem in (name, name + "_again"):
        save_figure(figure, sys.argv[1] + "/" + stem, make_record("test", "smoke"))
"""


def test_figures_have_the_same_bytes_twice_and_in_two_processes(tmp_path):
    digests = []
    for seed in ("1", "2"):  # a different hash seed each, and a reader's own settings in one of them
        folder, settings = tmp_path / seed, tmp_path / f"settings{seed}"
        settings.mkdir()
        (settings / "matplotlibrc").write_text("font.size: 20\nsavefig.dpi: 50\n" if seed == "2" else "")
        subprocess.run(
            [sys.executable, "-c", DRAW, str(folder)],
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "MATPLOTLIBRC": str(settings)},
        )
        digests.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()})
    assert digests[0] == digests[1] and len(digests[0]) == 4 * 2 * 3
    for name in ("levels", "curve", "plane", "training"):
        assert all(
            digests[0][f"{name}.{suffix}"] == digests[0][f"{name}_again.{suffix}"] for suffix in ("pdf", "png", "json")
        )


def test_figure_files_name_their_record_and_no_date(tmp_path):
    from PIL import Image

    record = make_record("1_generic_bias", "smoke")
    assert save_figure(training_curves({"RFT": log()}), tmp_path / "f", record) == record["id"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.json", "f.pdf", "f.png"]
    pdf = (tmp_path / "f.pdf").read_bytes()
    assert b"/Creator (speciarl)" in pdf and f"record {record['id']}".encode() in pdf and b"Date" not in pdf
    assert Image.open(tmp_path / "f.png").info["Description"] == f"record {record['id']}"
    assert Image.open(tmp_path / "f.png").info["Software"] == "speciarl"


def test_a_word_among_intervals_keeps_the_columns_of_the_csv():
    table = Table(["run", "HM", "p"], [["a", Interval(0.5, 0.4, 0.6), 0.1], ["b", "reference", None], ["c", None, 0.2]])
    assert to_csv(table).splitlines() == ["run,HM,HM low,HM high,p", "a,0.5,0.4,0.6,0.1", "b,reference,,,", "c,,,,0.2"]


def test_no_p_value_is_shown_as_zero():
    "The number itself stays in CSV; other columns keep three decimals."
    table = Table(["run", "p", "p (Holm)", "p, Holm", "pass"], [["a", 0.00005, 0.0004, 0.02, 0.0]])
    assert table.text() == [["a", "<.001", "<.001", ".020", ".000"]]
    assert "0.00005" in to_csv(table) or "5e-05" in to_csv(table)
    assert "&lt;.001" in to_html(table) and "<.001" in to_markdown(table).replace("\\", "")
