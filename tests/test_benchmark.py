"From answers to figures: format failures, incomplete rollouts, and what the base must score."

import csv

import numpy as np
import pytest

from speciarl.core.files import write_jsonl
from speciarl.core.scale import MISSING, UserError
from speciarl.data.samples import Sample
from speciarl.data.trees import load_trees
from speciarl.judges.tree import TreeJudge
from speciarl.metrics.rates import headline
from speciarl.metrics.runs import open_codes, run_benchmark, run_settings
from speciarl.policy.model import base_card
from speciarl.report.calibration import base_targets
from speciarl.report.tables import compare_with_published


@pytest.fixture(scope="module")
def judge():
    return TreeJudge(load_trees())


def row(i, answer, **changes):
    held = dict(sample_id=f"s{i}", dataset="birds", split="test", label="hooded warbler", prompt="general")
    return held | dict(rollout=0, text=answer, answer=answer) | changes


def run_of(rows, judge, folder):
    "A run over the images of these rows whose answers they are."
    samples = {(row["dataset"], row["sample_id"]): row["label"] for row in rows}
    samples = [Sample(name, f"{name}.png", label, dataset) for (dataset, name), label in samples.items()]
    settings = run_settings("a toy", samples, "general", 1, 0, judge.identity)
    run_benchmark(folder, samples, lambda asked, path: write_jsonl(path, rows), judge, settings)
    with open(folder / "verdicts.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_an_answer_that_is_not_there_is_a_format_failure(judge, tmp_path):
    "The command line counts an empty answer cell as a format failure; a run must count the empty tag the same."
    judged = run_of([row(0, None), row(1, ""), row(2, "warbler")], judge, tmp_path / "run")
    assert [r["source"] for r in judged] == ["format", "format", "tree"]
    assert [r["category"] for r in judged] == ["wrong", "wrong", "less specific"]


def test_incomplete_rollouts_are_refused(judge, tmp_path):
    rows = [row(0, "warbler"), row(0, "bird", rollout=1), row(1, "bird")]
    with pytest.raises(
        UserError, match="sample 's1' has 1 rollouts, the first one 2; finish the run or drop the sample$"
    ):
        run_of(rows, judge, tmp_path / "run")


def test_the_same_id_in_two_data_sets_is_two_images(judge, tmp_path):
    rows = [row(0, "warbler"), row(0, "beagle", dataset="oxford_pets", label="beagle")]
    run_of(rows, judge, tmp_path / "run")
    found = open_codes(tmp_path / "run")
    assert found.keys == [("birds", "s0"), ("oxford_pets", "s0")] and found.codes.tolist() == [[3], [4]]


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


def test_verdicts_of_a_run_survive_commas_and_line_ends(judge, tmp_path):
    rows = [row(0, 'a "bird",\nor so', text="not written"), row(1, None)]
    back = run_of(rows, judge, tmp_path / "run")
    assert [r["answer"] for r in back] == ['a "bird",\nor so', ""] and "text" not in back[0]


def test_the_base_is_calibrated_to_the_published_base_or_the_card_says_which_miss():
    targets = {"zero-shot S": 0.742, "zero-shot C": 0.846, "best of 64 S": 0.889, "best of 64 C": 0.984}
    assert base_targets() == targets
    rows = compare_with_published(base_card()["scores"], targets)
    assert [row["name"] for row in rows if not row["within"]] == base_card()["missed"]
