"From predictions to figures: format failures, incomplete rollouts, and what the base must score."

import csv

import numpy as np
import pytest

from speciarl.core.scale import MISSING, UserError
from speciarl.data.trees import load_trees
from speciarl.judges.tree import TreeJudge
from speciarl.metrics.benchmark import (
    CALIBRATION,
    CALIBRATION_TOLERANCE,
    codes_matrix,
    headline,
    judge_predictions,
    write_verdict_rows,
)
from speciarl.policy.model import base_card


@pytest.fixture(scope="module")
def judge():
    return TreeJudge(load_trees())


def row(i, answer, **changes):
    return dict(sample_id=f"s{i}", dataset="birds", label="hooded warbler", rollout=0, answer=answer) | changes


def test_an_answer_that_is_not_there_is_a_format_failure(judge):
    "The command line counts an empty answer cell as a format failure; a run must count the empty tag the same."
    judged = judge_predictions([row(0, None), row(1, ""), row(2, "warbler")], judge)
    assert [r["source"] for r in judged] == ["format", "format", "tree"] and [r["category"] for r in judged] == [
        "wrong",
        "wrong",
        "less specific",
    ]


def test_incomplete_rollouts_are_refused(judge):
    rows = judge_predictions([row(0, "warbler"), row(0, "bird", rollout=1), row(1, "bird")], judge)
    with pytest.raises(UserError, match=r"different numbers of rollouts \(1, 2\)"):
        codes_matrix(rows)


def test_the_same_id_in_two_data_sets_is_two_images(judge):
    ids, codes = codes_matrix(
        judge_predictions([row(0, "warbler"), row(0, "beagle", dataset="pets", label="beagle")], judge)
    )
    assert ids == ["s0", "s0"] and codes.tolist() == [[3], [4]]


def test_headline_figures():
    assert headline(np.array([[4, 0], [2, 3]])) == {
        "S": 0.6,
        "C": 0.75,
        "HM": 0.666667,
        "best-of-N S": 0.8,
        "best-of-N C": 1.0,
        "best-of-N HM": 0.888889,
    }
    assert headline(np.array([[MISSING]])) == {"S": None, "C": None, "HM": None}
    assert headline(np.array([[0], [1]])) == {"S": None, "C": 0.0, "HM": 0.0}


def test_verdict_rows_survive_commas_and_line_ends(judge, tmp_path):
    rows = judge_predictions([row(0, 'a "bird",\nor so', text="not written"), row(1, None)], judge)
    write_verdict_rows(tmp_path / "v.csv", rows)
    with open(tmp_path / "v.csv", newline="") as file:
        back = list(csv.DictReader(file))
    assert [r["answer"] for r in back] == ['a "bird",\nor so', ""] and "text" not in back[0]


def test_the_base_is_calibrated_to_the_published_base_or_the_card_says_which_miss():
    scores = base_card()["scores"]
    missed = [name for name, target in CALIBRATION.items() if abs(scores[name] - target) > CALIBRATION_TOLERANCE]
    assert missed == base_card()["missed"]
