"Tables of a run: each data set read by its own tree, one family of tests, and cells that were not computed."

import numpy as np
import pytest

from speciarl.data.sets import domains_of
from speciarl.metrics.compare import holm
from speciarl.metrics.openworld import open_world
from speciarl.metrics.selection import consensus, pick, selectors
from speciarl.report.figures import Example, example_panel, plot_pass, plot_risk, telling
from speciarl.report.table import to_csv
from speciarl.report.tables import (
    group_table,
    openworld_table,
    paired_table,
    risk_table,
    sampling_table,
    selector_table,
    stacked,
)


def test_each_data_set_is_read_by_its_own_tree():
    "In the birds' tree a hooded warbler is a warbler by kind; without a tree, by its words."
    answers = [["hooded warbler", "warbler", "bird"], ["samoyed", "dog", "dog"], ["white samoyed", "samoyed", "quux"]]
    apart = pick(answers, ["birds", "oxford_pets", None], lambda read: consensus(read, 0.6))
    assert [row[i] for row, i in zip(answers, apart.index)] == ["warbler", "dog", "samoyed"]
    for place, name in enumerate(["birds", "oxford_pets", None]):
        alone = pick(answers[place : place + 1], [name], lambda read: consensus(read, 0.6))
        assert (alone.index[0], alone.confidence[0]) == (apart.index[place], apart.confidence[place])


def test_a_stack_corrects_over_all_its_rows():
    rng = np.random.default_rng(0)
    runs = [{name: rng.choice(6, 40) for name in "ab"} for _ in range(3)]
    parts = {str(i): paired_table(run, n_boot=200) for i, run in enumerate(runs)}
    both = stacked(parts)
    p = [row[list(both.columns).index("p")] for row in both.rows]
    assert [row[list(both.columns).index("p, Holm")] for row in both.rows] == holm(p).tolist() and len(p) == 9
    assert "corrected over the 9 rows" in both.notes


def test_what_was_not_run_is_said_in_every_form():
    table = openworld_table({"run": open_world(["pug"], ["a pug"])})
    assert [str(row[3]) for row in table.rows][3:] == ["not run"] * 5 and "not run" in to_csv(table)
    assert "Not run: Llama inclusion (no judge server was given)." in table.notes
    assert domains_of(["birds", "mine"]) is None


def test_images_without_any_verdict_do_not_break_a_table():
    codes = np.full((4, 2), -1)
    codes[0] = [4, 2]
    picked = selectors([["samoyed", "dog"]] * 4, ["oxford_pets"] * 4)
    assert [row[0] for row in group_table(codes[None], ["a", "b", "b", "b"], n=2).rows] == ["a"]
    assert (
        risk_table(codes, picked).rows[0][-1] == 3
        and len(selector_table(codes, picked).rows) == 4
        and len(sampling_table(codes).rows) == 2
    )


def test_figures_of_odd_sizes():
    codes = np.array([[4], [0], [2]])
    assert (
        len(plot_risk(codes, selectors([["a"]] * 3, [None] * 3)).axes) == 1
        and len(plot_pass({"x": {1: 0.5}}).axes) == 1
    )
    panel = example_panel(
        [Example(np.zeros((4, 4, 3), np.uint8), "a $label_ " * 9, [("m", None, None), ("n", "x$y", "specific")])] * 5
    )
    assert len(panel.axes) == 8
    panel.draw_without_rendering()


@pytest.mark.parametrize(
    "levels, places", [([], []), ([("a", "a")], []), ([("a", "b"), ("b", "a"), ("b", "a")], [1, 0])]
)
def test_telling_images_are_those_on_which_methods_differ(levels, places):
    assert telling(levels) == places
