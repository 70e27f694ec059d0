"""Room for an answer: it fits the question, why an answer ended is kept by every engine, and answers that were cut off
are counted wherever answers are drawn."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from command_line import call, ok
from PIL import Image
from policy_server import policy_server  # noqa: F401 - a fixture
from pyarrow import parquet

import speciarl
from speciarl.core.files import read_json
from speciarl.core.scale import UserError
from speciarl.data.fieldguide import plates
from speciarl.data.samples import Sample
from speciarl.data.trees import load_trees
from speciarl.fine_r1.closed import evaluate_closed, summary
from speciarl.fine_r1.rationales import Teacher, ask_teacher
from speciarl.judges.tree import TreeJudge
from speciarl.metrics.matrix import compare_runs, load_matrix
from speciarl.metrics.runs import evaluate, judge_published, open_predictions, read_card
from speciarl.policy.engines import Sampling, TransformersEngine
from speciarl.policy.model import load_policy
from speciarl.policy.predict import predict, read_stream
from speciarl.policy.predictions import Predictions, codes_of, read_predictions, to_table, write_predictions
from speciarl.policy.prompts import load_prompt, load_question
from speciarl.policy.server import EngineGone, ServerEngine
from speciarl.report.page import facts_of
from speciarl.report.scores import score_report

PUBLISHED = Path(__file__).parent.parent / "paper" / "predictions" / "laptop"
GENERAL = load_prompt("general")
NAMES = ("ovenbird", "hooded warbler", "ovenbird", "hooded warbler", "ovenbird")


@pytest.fixture(scope="module")
def base():
    torch.set_num_threads(1)
    return load_policy("fieldguide-base", device="cpu")


@pytest.fixture(scope="module")
def judge():
    return TreeJudge(load_trees())


@pytest.fixture
def photos(tmp_path, monkeypatch):
    "Five pictures in the folder `birds`, which is in the working directory."
    monkeypatch.chdir(tmp_path)
    dice = np.random.default_rng(0)
    Path("birds").mkdir()
    rows = ["file,label,dataset"]
    for i, name in enumerate(NAMES):
        Image.fromarray(dice.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(f"birds/{i}.png")
        rows.append(f"{i}.png,{name},birds")
    Path("birds/labels.csv").write_text("\n".join(rows) + "\n")
    return [Sample(f"{i}.png", Path(f"birds/{i}.png"), name, "birds") for i, name in enumerate(NAMES)]


def served(server, **options):
    return ServerEngine("policy", server.url, api_key="", retries=0, **options)


def asked_of(server, *arguments):
    where = ["--model", "policy", "--engine", "openai", "--base-url", server.url, "--data", "birds"]
    return call("evaluate", *where, *arguments)


# The default


def test_a_model_that_reasons_at_length_is_not_cut_off_unasked(policy_server, photos, judge, tmp_path):
    policy_server.thought = 125
    card = evaluate(served(policy_server), photos, tmp_path / "run", judge)
    assert card["settings"]["sampling"]["max_tokens"] == 2048
    assert card["counts"]["cut_off"] == card["counts"]["format_failures"] == 0
    rows = read_stream(tmp_path / "run" / "predictions.jsonl")
    assert {row["finish_reason"] for row in rows} == {"stop"} and all(row["answer"] for row in rows)


@pytest.mark.parametrize(
    "text, room",
    [
        ("What is this? Answer inside <answer> </answer>.", 64),
        ("What is this? First reason, then answer inside <answer> </answer>.", 2048),
        ("Think. Then name it inside <answer> </answer>.", 2048),
    ],
)
def test_the_room_fits_a_prompt_of_the_users(tmp_path, text, room):
    (tmp_path / "mine.yaml").write_text(f"name: mine\ntext: {text}\n")
    assert load_question(tmp_path / "mine.yaml").room == room
    (tmp_path / "mine.yaml").write_text(f"name: mine\ntext: {text}\nmax_tokens: 7\n")
    assert load_question(tmp_path / "mine.yaml").room == 7


def test_a_context_that_is_too_small_names_the_option_that_helps(policy_server, photos):
    policy_server.room = 1024
    with pytest.raises(EngineGone, match="maximum context length is 1024 tokens.*--max-tokens N bounds answers"):
        predict(served(policy_server, give_up_after=2), photos, GENERAL, how=Sampling(max_tokens=2048))
    result = asked_of(policy_server, "--out", "run", "--max-tokens", 512)
    assert result.exit_code == 0, result.output


# Why an answer ended


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("share", [True, False])
def test_transformers_knows_a_missing_end_token(base, n, share):
    engine, samples = TransformersEngine(base, batch=12, share=share), plates("birds", "test", 5)
    whole = predict(engine, samples, GENERAL, how=Sampling(n))
    assert {row["finish_reason"] for row in whole} == {"stop"}
    length = [len(base.processor.tokenizer(row["text"])["input_ids"]) + 1 for row in whole]  # with the end token
    assert len(set(length)) > 1, "some are cut off and some are not"
    room = sorted(length)[len(length) // 2]
    short = predict(engine, samples, GENERAL, how=Sampling(n, max_tokens=room))
    assert {row["finish_reason"] for row in short} <= {"stop", "length"}
    if n == 1:  # greedy answers are the same as far as they go
        assert [row["finish_reason"] == "stop" for row in short] == [tokens <= room for tokens in length]


def test_a_server_says_it_of_each_answer(policy_server, photos):
    policy_server.thought, policy_server.ignores_n = 4, True
    for room, reason in ((5, "length"), (50, "stop")):
        rows = predict(served(policy_server), photos, GENERAL, how=Sampling(3, max_tokens=room))
        assert [row["finish_reason"] for row in rows] == [reason] * 15


# What is said of it


def test_many_cut_answers_end_a_run_as_failed_after_everything_is_written(policy_server, photos):
    policy_server.thought = 125
    result = asked_of(policy_server, "--out", "run", "--max-tokens", 64)
    told = "5 of 5 answers (100.0%) were cut off; --max-tokens gives more room (this was 64)"
    assert result.exit_code == 1 and result.stderr.splitlines()[-1] == f"error: {told}"
    assert ", 5 cut off\n" in result.stdout and read_card("run")["finished"] is True
    with open("run/scores.csv", newline="") as file:
        assert [row["cut off"] for row in csv.DictReader(file)] == ["1"]
    assert open_predictions("run").table["finish_reason"].to_pylist() == ["length"] * 5
    assert ("cut off", "5") in facts_of(read_card("run"))
    assert "cut off" in ok("score", "run") and "--max-tokens" in ok("score", "run")
    again = asked_of(policy_server, "--out", "more", "--max-tokens", 200)
    assert again.exit_code == 0 and ", 0 cut off\n" in again.stdout
    compared = ok("compare", "run", "more")
    assert "cut off" in compared
    assert [row["cut_off"] for row in compare_runs(["run", "more"]).scores] == [1.0, 0.0]


@pytest.mark.parametrize(
    "cut, warned, failed", [(1, False, False), (2, True, False), (20, True, False), (21, True, True)]
)
def test_one_percent_is_told_and_twenty_fail(judge, tmp_path, caplog, monkeypatch, cut, warned, failed):
    from speciarl.policy.predict import refuse_cut
    from speciarl.policy.prompts import Reply

    class Speaker:
        together, batch, limit = False, None, None

        def ask(self, samples, prompt, how):
            for place, _ in enumerate(samples):
                yield place, [Reply("<answer> ovenbird </answer>", "length" if place < cut else "stop")]

        def describe(self):
            return {"model": "speaker"}

        def agreed(self):
            return {}

        def identity(self):
            return {}

    samples = [Sample(f"{i}", Path(f"{i}.png"), "ovenbird", "birds") for i in range(100)]
    card = evaluate(Speaker(), samples, tmp_path / "run", judge)
    told = [line for line in caplog.messages if "--max-tokens gives more room" in line]
    assert card["counts"]["cut_off"] == cut and len(told) == warned
    if failed:
        with pytest.raises(UserError, match="^21 of 100 answers") as error:
            refuse_cut(cut, 100, 64)
        assert error.value.exit_code == 1
    else:
        refuse_cut(cut, 100, 64)


def test_a_matrix_takes_the_option_and_says_which_run_was_cut(policy_server, photos):
    policy_server.thought = 125
    model = {"model": "policy", "engine": "openai", "base_url": policy_server.url}
    matrix = {"models": [model], "data": ["birds=birds"], "prompts": ["general", "specific"]}
    Path("m.yaml").write_text(json.dumps(matrix))
    assert load_matrix("m.yaml").max_tokens is None
    Path("m.yaml").write_text(json.dumps(matrix | {"max_tokens": 64}))
    result = call("evaluate", "--matrix", "m.yaml", "--out", "runs")
    last = result.stderr.splitlines()[-1]
    assert result.exit_code == 1 and "__general__n1: 5 of 5 answers (100.0%) were cut off" in last
    assert len(list(Path("runs").glob("*/verdicts.csv"))) == 2


def test_questions_with_options_are_given_room_and_counted(policy_server, photos):
    policy_server.thought = 125
    where = ["closed", "--model", "policy", "--engine", "openai", "--base-url", policy_server.url, "--data", "birds"]
    result = call(*where, "--out", "short", "--max-tokens", 64)
    assert result.exit_code == 1 and "5 of 5 answers (100.0%) were cut off" in result.stderr.splitlines()[-1]
    answers = [json.loads(line) for line in Path("short/answers.jsonl").read_text().splitlines()]
    assert [row["finish_reason"] for row in answers] == ["length"] * 5
    with open("short/closed.csv", newline="") as file:
        assert next(csv.DictReader(file))["cut off"] == "5"
    assert ok(*where, "--out", "long") and summary(evaluate_closed(served(policy_server), photos))[0]["cut off"] == 0


def test_a_teacher_whose_reply_was_cut_off_is_asked_again(policy_server, photos, monkeypatch):
    policy_server.thought = 125
    teacher = Teacher("policy", policy_server.url, api_key="", retries=0, constrain=False)
    made = ask_teacher(teacher, photos, "out.jsonl", Sampling(max_tokens=64))
    assert made.reasons() == {"the reply was cut off; --max-tokens gives more room": 5}
    before = policy_server.calls
    made = ask_teacher(teacher, photos, "out.jsonl")
    assert policy_server.calls == before + 5 and made.reasons() == {"the reply is not the JSON that was asked for": 5}
    monkeypatch.setattr("policy_server.FIELDS", {*__import__("policy_server").FIELDS, "response_format"})
    where = ["rationales", "--data", "birds", "--base-url", policy_server.url, "--model", "policy"]
    result = call(*where, "--out", "new.jsonl", "--max-tokens", 64)
    assert result.exit_code == 1 and "5 of 5 answers (100.0%) were cut off" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("room, code", [(11, 1), (16, 0)])
def test_rollouts_that_were_cut_off_are_told_of_a_training_run(tmp_path, monkeypatch, room, code):
    monkeypatch.chdir(tmp_path)
    sizes = {"steps": 2, "prompts_per_generation": 4, "prompts_per_step": 4, "rollouts": 4, "micro_batch": 16}
    changes = [f"{key}={value}" for key, value in {"data.birds": 4, "max_tokens": room, **sizes}.items()]
    result = call(
        "train", "smoke/speciarl", "--out", "run", *(word for change in changes for word in ("--set", change))
    )
    share = read_json(Path("run/card.json"))["cut_off"]
    told = f"error: {share:.1%} of the rollouts were cut off; --set max_tokens=N gives more room (this was {room})\n"
    assert result.exit_code == code and (share > 0.2) == result.stderr.endswith(told) == (code == 1)
    assert Path("run/policy").is_dir()


# Files from before


def test_files_from_before_say_nothing_about_it(tmp_path, judge):
    source = sorted(PUBLISHED.glob("*_general_*.parquet"))[0]
    held = read_predictions(source)
    assert codes_of(held).cut is None and codes_of(held).cut_off is None
    write_predictions(tmp_path / "again.parquet", held)
    assert parquet.read_schema(tmp_path / "again.parquet").names == parquet.read_schema(source).names
    assert "cut off" not in score_report(source).table().columns
    card = judge_published(source, tmp_path / "run", judge)
    assert card["counts"]["cut_off"] is None and ("cut off", "not recorded") in facts_of(card)


def test_a_run_from_before_is_gone_on_with(base, judge, tmp_path):
    samples, how = plates("birds", "test", 4), Sampling(max_tokens=24)
    path = tmp_path / "p.jsonl"
    rows = predict(TransformersEngine(base, batch=2), samples, GENERAL, how=how, out=path)
    old = [{name: value for name, value in row.items() if name != "finish_reason"} for row in rows[:2]]
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    assert predict(TransformersEngine(base, batch=2), samples, GENERAL, how=how, out=path) == [*old, *rows[2:]]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_why_answers_ended_is_published(tmp_path, ending):
    row = dict(dataset="birds", split="test", label="ovenbird", prompt="general", rollout=0, text="", answer=None)
    ends = ("stop", "length", "content_filter", None)
    rows = [{**row, "sample_id": f"{i}.png", "finish_reason": end} for i, end in enumerate(ends)]
    judged = [{**row, "category": "wrong", "source": "format", "reason": ""} for row in rows]
    write_predictions(tmp_path / f"p.{ending}", Predictions({}, to_table(judged)))
    found = read_predictions(tmp_path / f"p.{ending}")
    assert found.table["finish_reason"].to_pylist() == list(ends) and codes_of(found).cut_off == 1
    assert speciarl.score(tmp_path / f"p.{ending}").lines[-1].cut_off == 1
    wrong = found.table.set_column(11, "finish_reason", pa.array([1, 2, 3, 4]))
    head = {"speciarl": json.dumps({"format": "speciarl predictions", "version": 1, "predictions": 4, "card": {}})}
    parquet.write_table(wrong.replace_schema_metadata(head), tmp_path / "w.parquet")
    with pytest.raises(UserError, match="column 'finish_reason' holds int64, not string"):
        read_predictions(tmp_path / "w.parquet")
