"""Selectors, agreement as confidence, risk-coverage and calibration, against plain re-implementations."""

import subprocess
import sys
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciarl.core.scale import UserError
from speciarl.data.trees import load_tree
from speciarl.metrics.rates import best_of_n, s_c_hm
from speciarl.metrics.selection import (
    by_confidence,
    by_tree,
    by_words,
    calibration_bins,
    calibration_error,
    chosen,
    consensus,
    majority_answer,
    read_answers,
    risk_area,
    risk_coverage,
    risks,
    selection_table,
    with_interval,
)

WORDS = ["golden winged warbler", "blue winged warbler", "warbler", "sparrow", "None", None, ""]
ROWS = st.integers(1, 7).flatmap(
    lambda n: st.lists(st.lists(st.sampled_from(WORDS), min_size=n, max_size=n), min_size=1, max_size=6)
)
SURE = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 1.0]), st.integers(-1, 5)), min_size=1, max_size=6)


def test_equal_answers_have_one_number_whatever_their_spelling():
    ids = read_answers([["Golden-winged Warbler", "golden winged warbler!", "warbler", "none", "N/A", None, ""]]).ids
    assert ids.tolist() == [[0, 0, 1, 2, 2, -1, -1]]


def test_a_tree_joins_synonyms_and_knows_what_stands_above():
    tree = load_tree("oxford_pets")
    read = read_answers([["samoyede", "Samoyed", "dog"]], by_tree(tree))
    assert read.ids.tolist() == [[0, 0, 1]] and read.implied[0] == {0, 1} and read.implied[1] == {1}


@pytest.mark.parametrize(
    "answers, message",
    [
        (
            [["a"], ["a", "b"]],
            "images have different numbers of answers: the predictions are incomplete; resume the run",
        ),
        ([], "there are no answers to read; give one row of answers for each image"),
    ],
)
def test_answers_that_cannot_be_read(answers, message):
    with pytest.raises(UserError) as caught:
        read_answers(answers)
    assert str(caught.value) == message


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_majority_is_the_most_common_answer_and_the_first_of_equals(rows):
    choice = majority_answer(read_answers(rows))
    for row, index, confidence in zip(rows, choice.index, choice.confidence):
        given_ = [text for text in row if text]
        most = max(map(given_.count, given_), default=0)
        assert confidence == most / len(row)
        assert index == (next(i for i, text in enumerate(row) if text and given_.count(text) == most) if given_ else 0)


@given(ROWS, st.sampled_from([0.2, 0.5, 0.8, 1.0]))
@settings(max_examples=60, deadline=None)
def test_consensus_is_supported_and_nothing_finer_is(rows, share):
    choice = consensus(read_answers(rows), share)
    for row, index, support in zip(rows, choice.index, choice.confidence):
        reach = {
            text: sum(text in by_words(other) or text == other for other in row if other) / len(row)
            for text in row
            if text
        }
        if not reach:
            assert (index, support) == (0, 0)
            continue
        assert support == pytest.approx(reach[row[index]])
        if max(reach.values()) >= share:
            finer = [text for text in reach if text != row[index] and row[index] in by_words(text)]
            assert support >= share - 1e-9 and all(reach[text] < share for text in finer)
        else:
            assert support == pytest.approx(max(reach.values()))


def test_the_share_is_a_dial_from_bold_to_cautious():
    read = read_answers(
        [["golden winged warbler"] * 4 + ["blue winged warbler"] * 3 + ["warbler", "winged warbler", None]]
    )
    said = {share: consensus(read, share).index[0] for share in (0.4, 0.6, 0.9)}
    assert said == {0.4: 0, 0.6: 8, 0.9: 7}  # the bird, "winged warbler", "warbler"


@pytest.mark.parametrize("share", [0, -1, 1.1, float("nan")])
def test_a_share_that_makes_no_sense(share):
    with pytest.raises(UserError, match="it must be over 0 and at most 1"):
        consensus(read_answers([["a"]]), share)


def test_the_table_lies_between_one_answer_and_the_oracle():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, (80, 5))
    rows = selection_table(ids + 2, read_answers([[f"name {i}" for i in row] for row in ids]), shares=(0.5, 0.9))
    assert [row["selector"] for row in rows] == [
        "one answer",
        "majority vote",
        "consensus of 50%",
        "consensus of 90%",
        "best of 5 (oracle)",
    ]
    assert rows[0]["hm"][0] == pytest.approx(s_c_hm((ids + 2).ravel())[2]) and rows[-1]["hm"][0] == pytest.approx(
        s_c_hm(best_of_n(ids + 2))[2]
    )
    assert [row["realisable"] for row in rows] == [True] * 4 + [False]


def test_codes_of_another_run_are_refused():
    with pytest.raises(UserError) as caught:
        chosen(np.zeros((3, 2), int), majority_answer(read_answers([["a", "b"]])))
    assert str(caught.value) == "codes must have the shape (images, answers), with one row for each image of the choice"


@given(SURE)
@settings(max_examples=60, deadline=None)
def test_risks_are_the_mean_over_all_orders_of_equals(cases):
    cases = [case for case in cases if case[1] >= 0]
    groups = by_confidence(*(map(np.array, zip(*cases)) if cases else (np.array([]), np.array([], int))))
    orders = [order for order in permutations(cases) if all(a[0] >= b[0] for a, b in pairwise(order))]
    expected = (
        np.mean([np.cumsum([code < 2 for _, code in order]) / np.arange(1, len(order) + 1) for order in orders], axis=0)
        if cases
        else []
    )
    assert np.allclose(risks(groups), expected)
    assert np.isnan(risk_area(groups)) if not cases else 0 <= risk_area(groups) <= 1


def test_missing_verdicts_are_left_out_and_counted():
    found = risk_coverage([0.9, 0.8, 0.1], [4, -1, 0])
    assert found["left_out"] == 1 and found["risk"][1.0] == 0.5 and found["perfect"] == found["area"] == 0.25
    with pytest.raises(UserError, match="no image has a verdict"):
        risk_coverage([0.9], [-1])


@pytest.mark.parametrize("confidence", [[1.2], [-0.1], [float("nan")], [0.5, 0.5], 0.5])
def test_confidences_that_are_none(confidence):
    with pytest.raises(UserError) as caught:
        by_confidence(confidence, np.array([4]))
    assert str(caught.value) == "confidence must have one number from 0 to 1 for each image's code"


def test_bins_hold_their_upper_edge():
    edges = np.arange(11) / 10
    rows = calibration_bins(by_confidence(edges, np.full(11, 4)), bins=10)
    assert [row["images"] for row in rows] == [2] + [1] * 9 and [row["high"] for row in rows] == [
        m / 10 for m in range(1, 11)
    ]


def test_calibration_error_is_zero_for_a_calibrated_run_and_depends_on_the_bins():
    groups = by_confidence([0.5, 0.5, 1.0], [4, 0, 4])
    assert calibration_error(groups) == 0 and np.isnan(calibration_error(by_confidence([0.5], [-1])))
    mixed = by_confidence([0.6, 0.9], [0, 4])
    assert calibration_error(mixed, 2) == pytest.approx(0.25) and calibration_error(mixed, 10) == pytest.approx(0.35)


def test_intervals_contain_the_value_and_repeat():
    rng = np.random.default_rng(1)
    groups = by_confidence(rng.integers(0, 17, 400) / 16, rng.integers(0, 6, 400))
    value, low, high = with_interval(risk_area, groups, n_boot=200)
    assert low < value < high and with_interval(risk_area, groups, n_boot=200) == (value, low, high)


def test_the_base_install_is_enough():
    code = (
        "import sys, speciarl.metrics.selection, speciarl.metrics.compare, speciarl.metrics.openworld; print([m "
        "for m in ('torch', 'transformers', 'openai', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
