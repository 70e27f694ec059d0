"Sampling: seeds, resume at any point, and nothing lost or invented."

import json

import pytest
import torch

from speciarl.data.fieldguide import plates
from speciarl.policy.model import load_policy
from speciarl.policy.prompts import load_prompt
from speciarl.policy.rollout import batch_seed, generate, read_predictions, rollout
from speciarl.core.scale import UserError

PROMPT = load_prompt("general")


@pytest.fixture(scope="module")
def base():
    torch.set_num_threads(1)
    return load_policy("fieldguide-base")


@pytest.fixture(scope="module")
def samples():
    return plates("birds", "test", 7)


@pytest.mark.parametrize("cut", [0.0, 0.1, 0.4, 0.77, 0.99])
def test_a_killed_run_resumes_to_the_same_bytes(base, samples, tmp_path, cut):
    path = tmp_path / "predictions.jsonl"
    rollout(base, samples, PROMPT, n=3, out=path, batch_size=6, max_new_tokens=16)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut)])
    rollout(base, samples, PROMPT, n=3, out=path, batch_size=6, max_new_tokens=16)
    assert path.read_bytes() == whole


def test_resume_asks_only_for_what_is_missing(base, samples, tmp_path, monkeypatch):
    path = tmp_path / "predictions.jsonl"
    rollout(base, samples, PROMPT, out=path, batch_size=2, max_new_tokens=16)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]))
    asked = []
    real = generate
    monkeypatch.setitem(
        rollout.__globals__,
        "generate",
        lambda policy, batch, *a, **k: asked.append([s.id for s in batch]) or real(policy, batch, *a, **k),
    )
    rollout(base, samples, PROMPT, out=path, batch_size=2, max_new_tokens=16)
    assert asked == [[s.id for s in samples[4:6]], [samples[6].id]], "the half-finished batch and the last one"


def test_the_same_seed_the_same_answers_another_seed_others(base, samples):
    def hot(seed):
        return generate(
            base, samples, PROMPT, n=4, greedy=False, temperature=1.0, top_p=1.0, seed=seed, max_new_tokens=16
        )

    assert hot(0) == hot(0) != hot(1)


def test_batch_seeds_depend_on_the_samples(samples):
    assert len({batch_seed(0, samples[i : i + 2]) for i in range(6)} | {batch_seed(1, samples[:2])}) == 7


def test_rows_say_what_was_asked(base, samples):
    rows = rollout(base, samples[:2], PROMPT, "general", n=2, max_new_tokens=16)
    assert [(r["sample_id"], r["rollout"], r["label"], r["prompt"]) for r in rows] == [
        (s.id, i, s.label, "general") for s in samples[:2] for i in range(2)
    ]


def test_an_answer_cut_off_by_the_token_limit_is_no_answer(base, samples):
    rows = rollout(base, samples[:1], PROMPT, max_new_tokens=4)
    assert rows[0]["answer"] is None and rows[0]["text"]


def test_a_broken_line_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"a": 1}) + "\n{broken\n" + json.dumps({"a": 2}) + "\n")
    with pytest.raises(UserError, match=r"p\.jsonl:2: not a line of JSON; delete the file to sample again$"):
        read_predictions(path)
