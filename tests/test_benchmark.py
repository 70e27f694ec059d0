"Benchmark runs: folders that say everything, resume, and refuse to become something else."

import csv
import json

import pytest
import torch

from speciarl.benchmark import CALIBRATION, CALIBRATION_TOLERANCE, codes_matrix, evaluate, judge_predictions
from speciarl.data import Sample
from speciarl.fieldguide import plates
from speciarl.labels import load_trees
from speciarl.policy import base_card, load_policy
from speciarl.scale import UserError
from speciarl.tree_judge import TreeJudge


@pytest.fixture(scope="module")
def base():
    torch.set_num_threads(1)
    return load_policy("fieldguide-base")


@pytest.fixture(scope="module")
def judge():
    return TreeJudge(load_trees())


def row(i, answer, **changes):
    return dict(sample_id=f"s{i}", dataset="birds", label="hooded warbler", rollout=0, answer=answer) | changes


def test_an_answer_that_is_not_there_is_a_format_failure(judge):
    "The command line counts an empty answer cell as a format failure; a run must count the empty tag the same."
    judged = judge_predictions([row(0, None), row(1, ""), row(2, "warbler")], judge)
    assert [r["source"] for r in judged] == ["format", "format", "tree"] and [r["category"] for r in judged] == ["wrong", "wrong", "less specific"]


def test_a_failing_judge_gives_no_verdict_and_the_card_counts_it(base, tmp_path):
    from speciarl.verdicts import Verdict

    def down(pairs, datasets=None):
        return [Verdict(None, "down", "the judge did not answer")] * len(pairs)
    down.identity = "down"
    card = evaluate(base, plates("birds", "test", 5), tmp_path / "run", down, max_new_tokens=16)
    assert card["counts"] == dict(answers=5, format_failures=0, no_verdict=5)
    assert card["scores"]["S"] is None, "no verdicts, no score"


def test_a_run_holds_what_it_says_and_resumes(base, judge, tmp_path):
    out, samples = tmp_path / "run", plates("birds", "test", 12)
    card = evaluate(base, samples, out, judge, n=2, max_new_tokens=16)
    with open(out / "verdicts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and {r["sample_id"] for r in rows} == {s.id for s in samples}
    assert json.loads((out / "card.json").read_text())["finished"] is True
    held = {p.name: p.read_bytes() for p in out.iterdir()}
    (out / "verdicts.csv").unlink()
    (out / "card.json").write_text(json.dumps({"settings": card["settings"], "finished": False}))
    (out / "predictions.jsonl").write_bytes(held["predictions.jsonl"][:900])
    evaluate(base, samples, out, judge, n=2, max_new_tokens=16)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == held


def test_samples_with_and_without_a_data_set(base, judge, tmp_path):
    "Labels files may name a data set on some rows only; sorting None among names once raised."
    samples = plates("birds", "test", 2)
    mixed = [samples[0], Sample(samples[1].id, samples[1].image, samples[1].label, None, "test")]
    assert evaluate(base, mixed, tmp_path / "run", judge, max_new_tokens=16)["counts"]["answers"] == 2


def test_a_foreign_folder_and_another_run_are_refused(base, judge, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="exists and holds no run of speciarl; choose another --out$"):
        evaluate(base, plates("birds", "test", 2), tmp_path / "mine", judge)
    evaluate(base, plates("birds", "test", 2), tmp_path / "run", judge, max_new_tokens=16)
    with pytest.raises(UserError, match=r"holds another run \(prompt is 'general', not 'specific'\); choose another --out$"):
        evaluate(base, plates("birds", "test", 2), tmp_path / "run", judge, prompt="specific")


def test_a_broken_picture_is_named_before_anything_is_written(base, judge, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(UserError, match="bad.png"):
        evaluate(base, [Sample("a", bad, "x", None, "test")], tmp_path / "run", judge)
    assert not (tmp_path / "run").exists()


def test_incomplete_rollouts_are_refused(judge):
    rows = judge_predictions([row(0, "warbler"), row(0, "bird", rollout=1), row(1, "bird")], judge)
    with pytest.raises(UserError, match=r"different numbers of rollouts \(1, 2\)"):
        codes_matrix(rows)


def test_the_base_is_calibrated_to_the_published_base_or_the_card_says_which_miss():
    scores = base_card()["scores"]
    missed = [name for name, target in CALIBRATION.items() if abs(scores[name] - target) > CALIBRATION_TOLERANCE]
    assert missed == base_card()["missed"]
