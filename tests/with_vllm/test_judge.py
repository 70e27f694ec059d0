"""The LLM judge and the real vLLM agree on the protocol. The model is random: every verdict in the six is the
constraint's doing."""

import json
import logging
import math
import re
import threading
import time

import pytest
from openai import OpenAI

import speciarl.judges.llm as module
from speciarl.core.scale import Category, UserError
from speciarl.judges.choose import StoredJudge
from speciarl.judges.llm import JudgeUnavailable, LLMJudge, confidence
from speciarl.judges.prompt import JudgePrompt, as_data, batch_ids, constraint_fields, load_judge_prompt, read_batch
from speciarl.judges.store import open_store


def pairs_of(count: int, word: str = "answer") -> list[tuple[str, str]]:
    return [(f"label {i % 97}", f"{word} {i}") for i in range(count)]


@pytest.fixture
def make(server):
    "A judge on the server."
    return lambda prompt="base_single", **options: LLMJudge("judge", server.url, prompt, **options)


@pytest.fixture
def old_field(monkeypatch):
    "The constraint in the words of older servers."
    monkeypatch.setattr(module, "constraint_fields", lambda form, names, count=1: {"guided_choice": list(names)})


# --- the constraint


def test_the_probe_finds_that_the_server_constrains(make, server, caplog):
    judge = make()
    found = judge.probe()
    assert (found["constraint"], found["model"], found["weights"]) == ("choice", "judge", str(server.model))
    assert not caplog.records and re.fullmatch("[0-9a-f]{64}", judge.identity)


def test_the_probe_finds_a_field_that_the_server_ignores(make, old_field, caplog):
    "vLLM answers 200 to the field it used to have, and says whatever it likes."
    with caplog.at_level(logging.WARNING, "speciarl.judges.llm"):
        assert make().probe()["constraint"] == "ignored"
    assert [record.getMessage() for record in caplog.records] == [
        "the judge's server ignores the list of allowed answers; its replies are read strictly, and whatever is not "
        "exactly a category gives no verdict"
    ]


def test_every_answer_gets_one_of_the_six(make):
    verdicts = make()(pairs_of(256))
    assert len(verdicts) == 256 and all(
        isinstance(verdict.category, Category) and verdict.source == "llm" for verdict in verdicts
    )


def test_without_the_constraint_the_same_model_gives_no_verdict_and_none_is_invented(make, old_field):
    verdicts = make()(pairs_of(32))
    assert {(verdict.category, verdict.source) for verdict in verdicts} == {(None, "llm unparsable")}


def test_an_unknown_model_is_told_with_the_one_there_is(server):
    with pytest.raises(UserError, match="^the server has no model 'other'; it has judge$"):
        LLMJudge("other", server.url).probe()


# --- confidence


def test_confidences_are_shares_of_one(make, server):
    judge = make(logprobs=True)
    pairs = pairs_of(32)
    verdicts = judge(pairs)
    assert all(verdict.category is not None for verdict in verdicts) and all(
        0 < share <= 1 for share in judge.last_confidences
    )
    with OpenAI(base_url=server.url, api_key="none") as client:
        body = {"model": "judge", **module._request(judge, pairs[:1])}
        reply = client.post("/chat/completions", body=body, cast_to=object)
    told = reply["choices"][0]["logprobs"]
    shares = {category: confidence(told, category) for category in Category}
    assert sum(shares.values()) == pytest.approx(1)
    assert sum(math.exp(token["logprob"]) for token in told["content"][0]["top_logprobs"]) == pytest.approx(
        1, abs=1e-3
    ), "the six initials hold all the mass there is"


def test_votes_differ_and_are_counted(make):
    judge = make(votes=3, temperature=1.0)
    verdicts = judge(pairs_of(32, "vote"))
    assert {verdict.source for verdict in verdicts} <= {"llm", "llm tied"}
    assert all(
        share in (2 / 3, 1.0)
        for share, verdict in zip(judge.last_confidences, verdicts)
        if verdict.category is not None
    )
    assert any("3 of 3" not in verdict.reason for verdict in verdicts)


# --- many at once


def test_64_calls_at_once(make, server):
    judge, peak, over = make(concurrency=64), [0.0], threading.Event()
    judge.probe()

    def watch():
        while not over.wait(0.1):
            running = re.findall(r"^vllm:num_requests_(?:running|waiting){.*} (\S+)$", server.get("/metrics"), re.M)
            peak[0] = max(peak[0], sum(map(float, running)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    verdicts = judge(pairs_of(512, "many"))
    seconds = time.monotonic() - began
    over.set()
    watcher.join()
    print(f"512 calls in {seconds:.1f} s, {512 / seconds:.0f} per second, at most {peak[0]:.0f} at once")
    assert all(verdict.category is not None for verdict in verdicts)
    assert 16 < peak[0] <= 64


# --- several pairs a call


def test_a_batch_comes_in_the_form_that_was_asked_for(make, server):
    "Sampled, as the greedy choice of this model is a number without end."
    assert make("base_batched").probe()["constraint"] == "schema"
    prompt, pairs = load_judge_prompt("base_batched"), pairs_of(3)
    lines = "\n".join(as_data(*pair, id) for pair, id in zip(pairs, batch_ids(3)))
    with OpenAI(base_url=server.url, api_key="none") as client:
        reply = client.chat.completions.create(
            model="judge",
            messages=prompt.messages(lines),
            temperature=1,
            seed=0,
            max_tokens=2000,
            **constraint_fields("batched", prompt.categories, 3),
        )
    text = reply.choices[0].message.content
    assert len(read_batch(text, [item["id"] for item in json.loads(text)["verdicts"]])) == 3


def test_a_batch_with_the_ids_it_was_given_is_read(make, monkeypatch):
    "This model can copy no number, so the schema says which comes where."

    def pinned(form, names, count=1):
        fields = constraint_fields(form, names, count)
        verdicts = fields["response_format"]["json_schema"]["schema"]["properties"]["verdicts"]
        item = verdicts.pop("items")
        verdicts["prefixItems"] = [
            {**item, "properties": {**item["properties"], "id": {"const": id}}} for id in batch_ids(count)
        ]
        return fields

    monkeypatch.setattr(module, "constraint_fields", pinned)
    verdicts = make("base_batched", batch=16)(pairs_of(40))
    assert len(verdicts) == 40 and all(
        isinstance(verdict.category, Category) and verdict.source == "llm" for verdict in verdicts
    )


def test_a_batch_that_cannot_be_read_gives_no_verdict(make):
    verdicts = make("base_batched", batch=4)(pairs_of(8))
    assert len(verdicts) == 8 and all(
        verdict.source in ("llm", "llm unparsable") and (verdict.category is None) == (verdict.source != "llm")
        for verdict in verdicts
    )


# --- what goes wrong


def test_a_prompt_that_is_too_long_is_refused_in_the_servers_words(make):
    prompt = JudgePrompt(
        name="long",
        form="single",
        categories=load_judge_prompt("base_single").categories,
        system="specific " * 6000,
        user="{pair}",
    )
    with pytest.raises(UserError, match="maximum context length is 4096 tokens") as caught:
        make(prompt)(pairs_of(4))
    assert "\n" not in str(caught.value) and "refused the request (400: " in str(caught.value)


def test_a_server_killed_in_the_middle_stops_the_run_and_the_next_run_completes(make, server, tmp_path):
    pairs, told = pairs_of(400, "stopped"), []

    def done(indices, verdicts):
        told.extend(zip(indices, verdicts))
        if len(told) > 60:
            server.kill()

    with open_store(tmp_path / "verdicts.sqlite") as store:
        judge = StoredJudge(make(retries=2, give_up_after=8), store)
        with pytest.raises(JudgeUnavailable, match="is gone: 8 calls in a row failed") as caught:
            judge(pairs, done=done)
        kept = sum(verdict.category is not None for _, verdict in told)
        assert (
            60 < kept < 400
            and store.count() == kept
            and f"; {kept} of 400 pairs were judged and were handed over to be stored; start the server and run again"
            in str(caught.value)
        )
        server.start()
        server.wait()
        judge = StoredJudge(make(), store)
        verdicts = judge(pairs)
        assert all(verdict.category is not None for verdict in verdicts) and (judge.hits, judge.asked) == (
            kept,
            400 - kept,
        )
        assert all(verdicts[i].category == verdict.category for i, verdict in told if verdict.category is not None)


def test_a_run_outlives_a_restart_of_the_server(make, server):
    pairs, told = pairs_of(400, "bridged"), {}

    def done(indices, verdicts):
        assert not told.keys() & set(indices)
        told.update(zip(indices, verdicts))
        if len(told) > 60 and not restarted:
            restarted.append(len(told))
            server.kill()
            server.start()

    restarted = []
    verdicts = make(retries=20, give_up_after=1000)(pairs, done=done)
    server.wait()
    assert restarted and restarted[0] < 400 and len(told) == 400
    assert all(verdict.category is not None for verdict in verdicts) and [told[i] for i in range(400)] == verdicts
