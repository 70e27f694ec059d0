"""Servers that refuse fields, or know them by other names: agreed on with the first request, told in one line, recorded
in the card; what the user says with --request comes first."""

import logging

import numpy as np
import pytest
from judge_server import judge_server, judge_server_process, rule  # noqa: F401 - fixtures
from PIL import Image
from policy_server import expected, policy_server  # noqa: F401 - a fixture
from refusal import message

from speciarl.core.calls import Refused, Terms, named_field
from speciarl.core.config import request_fields
from speciarl.core.files import read_json
from speciarl.core.scale import Category
from speciarl.data.samples import Sample
from speciarl.fine_r1.methods import train
from speciarl.fine_r1.rationales import Teacher
from speciarl.judges.llm import LLMJudge
from speciarl.judges.verdict import Verdict
from speciarl.metrics.matrix import load_matrix, matrix_runner, run_matrix
from speciarl.metrics.runs import evaluate
from speciarl.policy.engines import Sampling
from speciarl.policy.predict import answered, predict
from speciarl.policy.server import ServerEngine
from speciarl.training.recipe import load_recipe

WORDS = "name what the image shows"
DICE = np.random.default_rng(0)
ASKED = [Sample(f"p{i}", Image.fromarray(DICE.integers(0, 256, (40, 60, 3), dtype=np.uint8)), "dog") for i in range(6)]


def engine(handle, **more) -> ServerEngine:
    return ServerEngine("policy", handle.url, api_key="", **{"concurrency": 4, "give_up_after": 4, **more})


# -- what a refusal names


@pytest.mark.parametrize(
    "words, field",
    [
        ("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.", "max_tokens"),
        ("Unsupported value: 'temperature' does not support 0 with this model.", "temperature"),
        ('{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "not permitted"}]}', "seed"),
        ("`temperature` must be strictly positive", "temperature"),
        ("n must be 1", "n"),
        ("in no case can an answer be given", None),
        ("Unrecognized request argument supplied: top_logprobs", "top_logprobs"),
        ("the random_seed is wrong", None),
    ],
)
def test_the_field_that_a_refusal_names(words, field):
    names = ("max_tokens", "temperature", "seed", "n", "logprobs", "top_logprobs")
    assert named_field(words, names) == field


@pytest.mark.parametrize(
    "words",
    [
        "'max_tokens' is too large: 16384. This model's maximum context length is 4096 tokens",
        "Could not finish the message because max_tokens or model output limit was reached",
    ],
)
def test_a_limit_that_is_too_large_is_not_left_out(words):
    assert not Terms().learn(words, {"max_tokens": 16384})


# -- the engine


DIALECTS = {
    "another name": ({"max_tokens": None}, ("max_completion_tokens",), "max_tokens is sent as max_completion_tokens"),
    "no zero": (
        {"temperature": "temperature must not be 0"},
        (),
        "temperature left out (400: temperature must not be 0)",
    ),
    "neither": (
        {"max_tokens": None, "max_completion_tokens": None, "temperature": "temperature 0 is not taken"},
        (),
        "left out",
    ),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_server_that_is_not_vllm_is_asked_in_its_dialect(policy_server, caplog, dialect):
    policy_server.refuses, policy_server.takes, words = DIALECTS[dialect]
    with caplog.at_level(logging.WARNING):
        asked = engine(policy_server)
        good, lost = answered(predict(asked, ASKED, WORDS, how=Sampling()))
    assert not lost and [row["text"] for row in good] == [expected(s.image, WORDS, 0)[0] for s in ASKED]
    assert words in asked.terms.told() and words in caplog.messages[-1]
    refused = len(caplog.messages)
    assert policy_server.calls == len(ASKED) + refused, "the first request alone finds it out"


def test_without_seed_and_n_there_are_answers_all_the_same(policy_server):
    policy_server.refuses = {"seed": None, "random_seed": None, "n": "n must be 1", "top_p": None}
    asked = engine(policy_server)
    good, lost = answered(predict(asked, ASKED, WORDS, how=Sampling(3)))
    assert not lost and len(good) == 18 and set(asked.terms.dropped) == {"seed", "n", "top_p"}


def test_what_was_agreed_on_stands_in_the_card(policy_server, tmp_path):
    class Judge:
        identity = "test"

        def __call__(self, pairs, datasets=None, done=None):
            return [Verdict(Category.WRONG, "test") for _ in pairs]

    policy_server.refuses, policy_server.takes = {"max_tokens": None}, ("max_completion_tokens",)
    for _ in range(2):  # again, with nothing left to ask
        card = evaluate(engine(policy_server), ASKED, tmp_path / "run", Judge(), datasets=False)
        assert card["request"] == {"renamed": {"max_tokens": "max_completion_tokens"}}
        assert read_json(tmp_path / "run" / "card.json") == card


def test_a_server_that_takes_everything_is_asked_as_before(policy_server):
    asked = engine(policy_server)
    predict(asked, ASKED, WORDS)
    assert policy_server.calls == len(ASKED) and asked.terms.card() == {} and asked.terms.told() == ""


def test_what_the_user_sets_is_sent_and_never_left_out(policy_server):
    fields = request_fields(["max_tokens=", "max_completion_tokens=9", "temperature="])
    policy_server.refuses, policy_server.takes = {"max_tokens": None}, ("max_completion_tokens",)
    asked = engine(policy_server, extra=fields)
    assert not answered(predict(asked, ASKED, WORDS))[1] and policy_server.calls == len(ASKED)
    assert asked.terms.card() == {"set": fields}
    policy_server.refuses = {"top_p": None}
    said = message(predict, engine(policy_server, extra={"top_p": 0.5}), ASKED, WORDS)
    assert "'top_p' is not supported with this model" in said


def test_a_teacher_is_asked_in_its_dialect(policy_server):
    policy_server.refuses, policy_server.takes = {"max_tokens": None}, ("max_completion_tokens",)
    teacher = Teacher("policy", policy_server.url, api_key="", constrain=False, extra={"temperature": None})
    found = dict(teacher.ask(ASKED, WORDS, Sampling(max_tokens=64)))
    assert all(isinstance(texts, list) for texts in found.values())


def test_a_refusal_that_names_nothing_ends_with_a_way_out_that_works(policy_server):
    policy_server.refuses = {"temperature": "bad request, 0"}
    said = message(predict, engine(policy_server), ASKED, WORDS)
    assert "refuses every request (400: bad request, 0)" in said and "--request FIELD= leaves a field out" in said
    assert not answered(predict(engine(policy_server, extra=request_fields(["temperature="])), ASKED, WORDS))[1]


def test_a_matrix_file_sets_fields_and_bounds_pictures(policy_server, tmp_path, monkeypatch):
    class Judge:
        identity = "test"

        def __call__(self, pairs, datasets=None, done=None):
            return [Verdict(Category.WRONG, "test") for _ in pairs]

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (300, 200)).save("photos/a.png")
    (tmp_path / "photos" / "labels.csv").write_text("file,label\na.png,dog\n")
    policy_server.refuses = {"temperature": "no 0"}
    (tmp_path / "m.yaml").write_text(
        f"models:\n- {{model: policy, engine: openai, base_url: '{policy_server.url}', "
        "request: {temperature: null}}\n"
        "data: [photos]\nmax_pixels: 20000\n"
    )
    matrix = load_matrix(tmp_path / "m.yaml")
    [card] = run_matrix(matrix, "out", matrix_runner(matrix, Judge()), lambda line: None).values()
    assert card["request"] == {"set": {"temperature": None}} and policy_server.calls == 1
    assert card["settings"]["max_pixels"] == 20_000 and card["settings"]["extra"] == {"temperature": None}


@pytest.mark.parametrize(
    "lines, said",
    [
        (
            "models: [{model: m, request: {seed: 1}}]",
            "models.0.request: these are fields for a server: they go with en",
        ),
        ("models: [{model: m, engine: openai, request: {n: 2}}]", "models.0.request: n=2: n is set by speciarl itself"),
        ("models: [m]\njudge_request: {top_p: high}", 'judge_request: top_p="high": top_p is a number of at least 0'),
        ("models: [m]\nmax_pixels: 3", "max_pixels: Input should be greater than or equal to 784"),
    ],
)
def test_fields_of_a_matrix_file_that_cannot_be_are_refused(tmp_path, lines, said):
    (tmp_path / "m.yaml").write_text(lines + "\ndata: [birds]\n")
    assert said in message(load_matrix, tmp_path / "m.yaml")


def test_a_training_run_notes_what_was_agreed_on_with_its_judge(judge_server, tmp_path):
    judge_server.set(longest="max_completion_tokens")
    small = ["steps=1", "siblings=2", "data.birds=4", "prompts_per_generation=4", "prompts_per_step=4", "rollouts=2"]
    judge = ["judge=llm", "judge_model=judge", f"judge_url={judge_server.url}"]
    run = train(load_recipe("smoke/speciarl", [*small, "micro_batch=8", *judge]), tmp_path / "run")
    assert read_json(run / "card.json")["judge_request"] == {"renamed": {"max_tokens": "max_completion_tokens"}}


# -- the judge


def judged(judge: LLMJudge) -> list[str]:
    pairs = [("samoyed", f"answer {i}") for i in range(4)]
    found = judge(pairs)
    assert [verdict.category.wire for verdict in found] == [rule(*pair) for pair in pairs]
    return [verdict.source for verdict in found]


@pytest.mark.parametrize(
    "settings, options, left_out",
    [
        (dict(longest="max_completion_tokens"), {}, set()),
        (dict(refuses=["temperature"]), {}, {"temperature"}),
        (dict(refuses=["logprobs"]), dict(logprobs=True), {"logprobs", "top_logprobs"}),
        (dict(refuses=["seed", "random_seed"]), dict(votes=3), {"seed"}),
        (dict(refuses=["temperature"], constrain="refuse", longest="max_completion_tokens"), {}, {"temperature"}),
    ],
)
def test_a_judge_is_asked_in_its_server_s_dialect(judge_server, caplog, settings, options, left_out):
    plain = LLMJudge("judge", judge_server.url, api_key="", **options).identity
    judge_server.set(**settings)
    judge = LLMJudge("judge", judge_server.url, api_key="", **options)
    with caplog.at_level(logging.WARNING):
        assert set(judged(judge)) == {"llm"}
    assert set(judge.terms.dropped) == left_out
    assert judge.description["request"] == judge.terms.card()
    assert any("the judge's server" in line for line in caplog.messages)
    changes_verdicts = bool(left_out - {"logprobs", "top_logprobs"}) or "constrain" in settings
    assert (judge.identity != plain) == changes_verdicts


def test_fields_of_the_user_change_the_identity_of_a_judge(judge_server):
    plain = LLMJudge("judge", judge_server.url, api_key="")
    other = LLMJudge("judge", judge_server.url, api_key="", request=request_fields(["temperature="]))
    assert "request" not in plain.description and plain.identity != other.identity
    assert judged(other) and "temperature" not in judge_server.stats()["last"]


def test_a_refusal_that_names_no_field_says_what_can_be_done(judge_server):
    judge_server.set(script=["400"] * 9, refuses=["messages"])
    said = message(LLMJudge("judge", judge_server.url, api_key="").probe, kind=Refused)
    assert said.endswith("(--request FIELD=VALUE sets a field, FIELD= leaves it out) or the server")


# -- --request


@pytest.mark.parametrize(
    "changes, found",
    [
        (["top_k=20", "top_p=0.5"], {"top_k": 20, "top_p": 0.5}),
        (["seed="], {"seed": None}),
        (["reasoning_effort=low"], {"reasoning_effort": "low"}),
        (["a.b.c=true", "a.d=[1]"], {"a": {"b": {"c": True}, "d": [1]}}),
        ([], {}),
    ],
)
def test_fields_of_a_request(changes, found):
    assert request_fields(changes) == found


@pytest.mark.parametrize(
    "changes, said",
    [
        (["top_k"], "--request top_k: write it as KEY=VALUE, such as top_k=20; KEY= leaves a field out"),
        (["=3"], "--request =3: write it as KEY=VALUE, such as top_k=20; KEY= leaves a field out"),
        (["n=3"], "--request n=3: n is set by speciarl itself; use --n"),
        (["stream=true"], "--request stream=true: stream is set by speciarl itself"),
        (["temperature=warm"], "--request temperature=warm: temperature is a number of at least 0"),
        (["temperature=true"], "--request temperature=true: temperature is a number of at least 0"),
        (["max_tokens=1.5"], "--request max_tokens=1.5: max_tokens is a whole number"),
        (["a=1", "a=2"], "--request a=2: a field can be given once, and only whole fields can be left out"),
        (["a.b="], "--request a.b=: a field can be given once, and only whole fields can be left out"),
        (["a=1", "a.b=2"], "--request a.b=2: a has been given a value of its own; give one of the two"),
    ],
)
def test_fields_that_cannot_be_are_refused(changes, said):
    assert message(request_fields, changes) == said
