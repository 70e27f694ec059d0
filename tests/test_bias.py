"""Level tables and their figures."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from speciarl.core.scale import WIRE_NAMES, UserError
from speciarl.metrics.rates import best_of_n, level_shares, s_c_hm
from speciarl.metrics.resampling import headroom, level_table
from speciarl.report.figures import LEVEL_COLOURS, drawing, plot_curve, plot_levels, style
from speciarl.report.tables import compare_with_published

CODES = np.random.default_rng(0).choice(6, size=(80, 8), p=[0.15, 0.02, 0.4, 0.15, 0.26, 0.02])

# What three kinds of colour-blind eyes see, in linear RGB (Machado, Oliveira and Fernandes 2009, severity 1), and
# ordinary eyes.
VISION = {
    "ordinary": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("vision", VISION)
def test_the_level_colours_are_ordered_by_lightness_for_every_eye(vision):
    rgb = np.array([to_rgb(colour) for colour in LEVEL_COLOURS.values()])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(VISION[vision]).T, 0, 1)
    lightness = 116 * np.cbrt(seen @ [0.2126, 0.7152, 0.0722]) - 16
    assert tuple(LEVEL_COLOURS) == WIRE_NAMES and (np.diff(lightness) > 10).all()


def test_level_shares():
    assert level_shares([0, 4, 4, -1]) == {
        "wrong": 1 / 3,
        "abstain": 0,
        "generic": 0,
        "less specific": 0,
        "specific": 2 / 3,
        "more specific": 0,
    }


def test_the_table_compares_one_answer_with_the_best():
    one, best = level_table(CODES)
    assert (one["k"], one["answers"], best["k"], best["answers"]) == (1, "one answer", 8, "best of 8")
    assert one["shares"] == pytest.approx(level_shares(CODES)) and best["shares"] == pytest.approx(
        level_shares(best_of_n(CODES))
    )
    for row, codes in ((one, CODES.ravel()), (best, best_of_n(CODES))):
        assert [row[m][0] for m in ("specificity", "correctness", "hm")] == pytest.approx(
            [x.item() for x in s_c_hm(codes)]
        )
        assert all(row[m][1] <= row[m][0] <= row[m][2] for m in ("specificity", "correctness", "hm"))


def test_several_seeds_and_missing_verdicts():
    codes = np.stack([CODES, CODES, CODES])
    codes[:, 0] = -1
    rows = level_table(codes, ks=[1, 2])
    assert [row["missing"] for row in rows] == pytest.approx([1 / 80, 1 / 80])
    assert rows[0]["shares"] == pytest.approx(level_shares(codes))


def test_headroom_is_best_minus_one():
    gain = headroom(CODES)["specificity"]
    assert gain["gain"] == pytest.approx(gain["best of 8"] - gain["one answer"]) and gain["gain"] > 0


def test_a_comparison_with_published_figures_reports_the_miss():
    rows = compare_with_published({"S": 0.67, "C": 0.7, "more": 1.0}, {"S": 0.74, "C": 0.85})
    assert [(row["name"], round(row["difference"], 3), row["within"]) for row in rows] == [
        ("S", -0.07, True),
        ("C", -0.15, False),
    ]


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: level_table(np.zeros(3, int)),
            "codes must have the shape (images, answers) or (seeds, images, answers)",
        ),
        (
            lambda: compare_with_published({"S": 1.0}, {"S": 1.0, "C": 1.0}),
            "not measured: C; measure every figure that is compared",
        ),
        (
            lambda: level_table(CODES, ks=[9]),
            "cannot take the best of 9: there are 8 answers to each image, so k must be from 1 to 8",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value) == message


def test_bars_fill_a_hundred_percent_in_the_order_of_the_scale():
    figure = plot_levels({"a": level_shares(CODES), "b": level_shares(best_of_n(CODES))})
    bars = figure.axes[0].patches
    assert [sum(bar.get_width() for bar in bars[i : i + 6]) for i in (0, 6)] == pytest.approx([100, 100])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(WIRE_NAMES)
    assert figure.axes[0].get_xlabel() == "share of judged answers (%)" and figure.axes[0].yaxis_inverted()


def test_the_curve_draws_what_the_table_says():
    rows = level_table(CODES, ks=[1, 2, 4, 8])
    axes = plot_curve(rows).axes[0]
    assert [list(line.get_ydata()) for line in axes.lines] == [
        [row[m][0] for row in rows] for m in ("specificity", "correctness", "hm")
    ]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answers per image, the best one counts", "score (0 to 1)")


def test_the_style_is_put_back():
    before = dict(matplotlib.rcParams)
    with style():
        assert matplotlib.rcParams["font.size"] == 8 and matplotlib.rcParams["pdf.fonttype"] == 42
    assert dict(matplotlib.rcParams) == before


def test_a_drawing_has_the_style_and_is_laid_out_for_good():
    before = dict(matplotlib.rcParams)
    with drawing(3, 2) as figure:
        axes = figure.subplots()
        axes.set_title("a long title\nof two lines")
        assert axes.title.get_fontsize() == 8
    place = axes.get_position().bounds
    figure.draw_without_rendering()
    assert axes.get_position().bounds == place and tuple(figure.get_size_inches()) == (3, 2)
    assert dict(matplotlib.rcParams) == before


def test_matplotlib_is_loaded_only_to_draw():
    code = (
        "import sys, speciarl.report.table, speciarl.report.figures, speciarl.report.tables, speciarl.report.page; "
        "print([m for m in ('matplotlib', 'matplotlib.pyplot', 'torch', 'pandas') if m in sys.modules]); "
        "from speciarl.report.figures import plot_pass; plot_pass({'a': {1: 0.5, 2: 0.7}}); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "[]\nFalse\n", "and drawing needs no pyplot"
