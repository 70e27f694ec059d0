"Asking about many samples: seeds, resume at any point, and nothing lost or invented."

import json
from dataclasses import replace

import pytest
import torch

from speciarl.core.scale import UserError
from speciarl.data.fieldguide import plates
from speciarl.policy import engines
from speciarl.policy.engines import Sampling, TransformersEngine, batch_seed, draw
from speciarl.policy.model import encode, load_policy, placeholders
from speciarl.policy.predict import predict, read_stream, replies, texts_of
from speciarl.policy.prompts import load_prompt

PROMPT = load_prompt("general")


@pytest.fixture(scope="module")
def base():
    torch.set_num_threads(1)
    return load_policy("fieldguide-base", device="cpu")


@pytest.fixture(scope="module")
def samples():
    return plates("birds", "test", 10)


@torch.inference_mode()
def plainly(policy, batch, n, how) -> list[list[str]]:
    "What transformers answers if it is asked directly: each answer looks at the picture itself."
    inputs = encode(policy, batch, PROMPT)
    torch.manual_seed(batch_seed(how.seed, batch))
    drawn = dict(do_sample=True, temperature=how.temperature, top_p=how.top_p, top_k=0, num_return_sequences=n)
    output = policy.model.generate(
        **inputs,
        **(dict(do_sample=False) if how.greedy else drawn),
        max_new_tokens=how.max_tokens,
        suppress_tokens=placeholders(policy),
    )
    answers = output[:, inputs["input_ids"].shape[1] :]
    texts = policy.processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [texts[i * n : (i + 1) * n] for i in range(len(batch))]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("images", [1, 4, 16])
@pytest.mark.parametrize(
    ("n", "temperature", "top_p"), [(1, 0.0, 1.0), (1, 0.6, 0.95), (1, 1.0, 1.0), (10, 0.6, 0.95), (10, 1.0, 1.0)]
)
def test_the_engine_draws_what_transformers_draws(base, samples, share, images, n, temperature, top_p):
    how = Sampling(n, temperature, top_p, seed=3, max_tokens=16)
    found = texts_of(TransformersEngine(base, batch=images * n, share=share), samples, PROMPT, how)
    batches = [samples[start : start + images] for start in range(0, len(samples), images)]
    assert found == [texts for batch in batches for texts in plainly(base, batch, n, how)]


@pytest.mark.parametrize("cut", [0.0, 0.1, 0.4, 0.77, 0.99])
def test_a_killed_run_resumes_to_the_same_bytes(base, samples, tmp_path, cut):
    path, how = tmp_path / "predictions.jsonl", Sampling(3, max_tokens=16)
    predict(TransformersEngine(base, batch=6), samples[:7], PROMPT, how=how, out=path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * cut)])
    predict(TransformersEngine(base, batch=6), samples[:7], PROMPT, how=how, out=path)
    assert path.read_bytes() == whole


def test_resume_asks_only_for_what_is_missing(base, samples, tmp_path, monkeypatch):
    path, how = tmp_path / "predictions.jsonl", Sampling(max_tokens=16)
    predict(TransformersEngine(base, batch=2), samples[:7], PROMPT, how=how, out=path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]))
    asked = []

    def noted(policy, batch, *others):
        asked.append([sample.id for sample in batch])
        return draw(policy, batch, *others)

    monkeypatch.setattr(engines, "draw", noted)
    predict(TransformersEngine(base, batch=2), samples[:7], PROMPT, how=how, out=path)
    assert asked == [[s.id for s in samples[4:6]], [samples[6].id]], "the half-finished batch and the last one"


def test_the_same_seed_the_same_answers_another_seed_others(base, samples):
    def hot(seed):
        return draw(base, samples[:7], PROMPT, Sampling(4, 1.0, 1.0, seed, 16))

    assert hot(0) == hot(0) != hot(1)


def test_batch_seeds_depend_on_the_samples(samples):
    assert len({batch_seed(0, samples[i : i + 2]) for i in range(6)} | {batch_seed(1, samples[:2])}) == 7


def test_rows_say_what_was_asked(base, samples):
    rows = predict(TransformersEngine(base), samples[:2], PROMPT, "general", Sampling(2, max_tokens=16))
    assert [(r["sample_id"], r["rollout"], r["label"], r["prompt"]) for r in rows] == [
        (s.id, i, s.label, "general") for s in samples[:2] for i in range(2)
    ]


def test_an_answer_cut_off_by_the_token_limit_is_no_answer(base, samples):
    rows = predict(TransformersEngine(base), samples[:1], PROMPT, how=Sampling(max_tokens=4))
    assert rows[0]["answer"] is None and rows[0]["text"]


def test_a_broken_line_in_the_middle_is_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"a": 1}) + "\n{broken\n" + json.dumps({"a": 2}) + "\n")
    with pytest.raises(UserError, match=r"p\.jsonl:2: not a line of JSON in UTF-8; delete the file to sample again$"):
        read_stream(path)


def test_replies_are_in_the_order_of_the_samples_errors_among_them(base, samples, tmp_path):
    asked = [samples[0], replace(samples[1], image=tmp_path / "none.png"), *samples[2:5]]
    found = list(replies(TransformersEngine(base, batch=2), asked, PROMPT, Sampling(max_tokens=16)))
    assert [isinstance(one, Exception) for one in found] == [False, True, False, False, False]
    assert found[2:4] == draw(base, samples[2:4], PROMPT, Sampling(max_tokens=16))
    with pytest.raises(UserError, match="no such image; check the path$"):
        texts_of(TransformersEngine(base, batch=2), asked, PROMPT, Sampling(max_tokens=16))
