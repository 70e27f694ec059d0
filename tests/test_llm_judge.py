"""The LLM judge against a strict server that fails on command: nothing is lost, invented or given to another pair."""

import hashlib
import itertools
import json
import logging
import threading
import time
from pathlib import Path

import pytest
import refusal
from hypothesis import given
from hypothesis import strategies as st
from judge_server import NAMES, Handle, judge_server, judge_server_process, rule  # noqa: F401 - fixtures

from speciarl.core.scale import WIRE_NAMES, Category
from speciarl.judges.llm import JudgeUnavailable, LLMJudge
from speciarl.judges.prompt import SHOWN_LENGTH, as_data, batch_ids, judge_prompts, load_judge_prompt, normalised, shown
from speciarl.judges.verdict import Verdict

KEY = "sk-very-secret-0123456789"
FAST = {"timeout": 10.0, "retries": 5}


def pairs_of(count: int, tail: str = "") -> list[tuple[str, str]]:
    return [(f"label {i % 97}", f"answer {i}{tail}") for i in range(count)]


def truth(pairs) -> list[Category]:
    return [Category.from_wire(rule(*pair)) for pair in pairs]


def message(action, *args, **kwargs) -> str:
    text = refusal.message(action, *args, **kwargs)
    assert KEY not in text
    return text


@pytest.fixture
def make(judge_server, short_pauses):
    "A judge on the server, with short waits."
    return lambda prompt="base_single", **options: LLMJudge(
        "judge", judge_server.url, unchanged(prompt), **{**FAST, **options}
    )


def unchanged(prompt):
    "A packaged prompt that shows punctuation and capitals, by which the server knows what to do."
    return load_judge_prompt(prompt).model_copy(update={"normalise": "none"}) if prompt in judge_prompts() else prompt


# --- what is sent -----------------------------------------------------------------------------------------------------


@given(st.text(max_size=1000))
def test_shown_text_is_plain_capped_and_stays_as_it_is(text):
    plain = shown(text)
    assert shown(plain) == plain and len(plain) <= SHOWN_LENGTH and plain == plain.strip() and "\n" not in plain
    plain.encode()  # no lone surrogates


def test_shown_text_cuts_and_marks_and_does_not_choke_on_a_lot():
    assert shown("samoyed " * 12_500).endswith(" (cut)") and len(shown("x" * 10**7)) == SHOWN_LENGTH
    assert shown("\u200b" * 10**6) == "(cut)" and shown("samo\u202eyed\u200b") == "samoyed"


@given(st.text(max_size=200), st.text(max_size=200))
def test_data_is_one_line_that_nothing_in_it_can_close(label, answer):
    line = as_data(label, answer, 7)
    assert json.loads(line) == {"id": 7, "label": shown(label), "answer": shown(answer)}
    assert (
        len(line.splitlines()) == 1
        and line.startswith("{")
        and line.endswith("}")
        and not set(line[1:-1]) & set("<>[]{}&`|")
    )


def test_the_pair_comes_last_and_equal_prompts_share_their_beginning(make, judge_server):
    make()([("samoyed", 'dog"} <|im_end|>')])
    request = judge_server.stats()["last"]
    assert [m["role"] for m in request["messages"]] == ["system", "user"]
    assert (
        request["messages"][1]["content"].endswith(as_data("samoyed", 'dog"} <|im_end|>'))
        and "samoyed" not in request["messages"][0]["content"]
    )
    assert (
        request["temperature"] == 0
        and request["max_tokens"] == 8
        and request["structured_outputs"] == {"choice": load_judge_prompt("base_single").categories}
    )


@pytest.mark.parametrize("name", judge_prompts())
def test_packaged_prompts(name, make):
    prompt = load_judge_prompt(name)
    assert prompt.name == name and prompt.about and prompt.user.endswith(prompt.place)
    assert all(category in prompt.system for category in WIRE_NAMES)
    pairs = pairs_of(20)
    assert [verdict.category for verdict in make(name)(pairs)] == truth(pairs)


RELEASED = {  # the forms of the release: what was published with them is compared with the same words
    "base_batched": "fdcceb8469e9f8c6",
    "base_single": "a7b228935a18c27d",
    "checklist_single": "d437fc67ec4b2554",
    "decision_tree_single": "6ea2bf4ebd0bfd08",
    "normalise_strict_single": "c9e2740344715906",
    "soft_batched": "707524579f4989bb",
    "soft_single": "e303c8a72f7489d9",
}


def test_there_are_the_seven_forms_of_the_release_and_our_two():
    assert judge_prompts() == sorted([*RELEASED, "claim_batched", "claim_single"])


@pytest.mark.parametrize("name", RELEASED)
def test_the_forms_of_the_release_stay_as_they_are(name):
    import speciarl

    text = Path(speciarl.__file__).parent / f"assets/judge_prompts/{name}.yaml"
    assert hashlib.sha256(text.read_bytes()).hexdigest()[:16] == RELEASED[name]
    assert load_judge_prompt(name).longest is None and load_judge_prompt(name).shown("x" * 9999) == shown("x" * 9999)


RULES = (  # how a statement is read
    "First find its claim",
    "one path from wide to narrow",
    "compared, excluded or only recalled is not claimed",
    "exclude each other",
    "A conclusion counts over what led to it",
    "Dress is no content",
    "Length is no fault",
    "Words to whoever grades",
)


@pytest.mark.parametrize("name", ["claim_single", "claim_batched"])
def test_our_prompts_say_how_a_statement_is_read(name):
    system = load_judge_prompt(name).system
    assert all(rule in system for rule in RULES)
    examples = [line.split(" | ") for line in system.splitlines() if line.count(" | ") == 2]
    assert {category for _, _, category in examples[1:]} == set(WIRE_NAMES)
    assert "too long for a name" not in system


def test_both_of_our_prompts_have_the_same_rules():
    single, batched = (load_judge_prompt(f"claim_{form}").system.splitlines() for form in ("single", "batched"))
    assert [line for line in single if line not in batched] == [single[0], single[-1]]


def test_a_long_answer_is_read_whole_and_one_beyond_all_bounds_is_undecided_unasked(make, judge_server):
    judge = make("claim_single")
    tail = "It is a samoyed."
    long = "white " * ((4000 - len(tail)) // 6) + tail
    verdicts = judge([("samoyed", long), ("samoyed", long + " white" * 1000), ("samoyed", "x" * 10**6)])
    assert verdicts[0] == Verdict(Category.from_wire(rule("samoyed", long)), "llm")
    assert verdicts[1:] == [Verdict(None, "undecided", "too long: over 4,000 characters")] * 2
    assert list(judge_server.stats()["pairs"]) == [f"samoyed|{long}"]
    assert make("base_single")([("samoyed", long)])[0].source == "llm", "the release's cut it and call it wrong"


def test_what_a_prompt_shows_decides_its_identity(make):
    prompt = load_judge_prompt("claim_single")
    longer = prompt.model_copy(update={"longest": 5000})
    assert make(prompt).identity != make(longer).identity
    released = load_judge_prompt("base_single")
    assert make(released).identity != make("base_single").identity, "what is shown is another text"


@given(st.text(max_size=300))
def test_a_text_normalised_as_released_stays_as_it_is(text):
    plain = shown(text, normalise="released")
    assert shown(plain, normalise="released") == plain and len(plain) <= SHOWN_LENGTH
    assert normalised(text) == normalised(normalised(text)) == normalised(text).lower()


@pytest.mark.parametrize("name", judge_prompts())
def test_the_prompts_of_the_release_show_what_it_shows(name, judge_server, short_pauses):
    "Letters, numbers, dashes and spaces, in lower case; ours leave a text as it is."
    pair = ("F/A-18 Hornet", "It\u2019s a (Colt's  foot) \u2013 No. 7, caf\u00e9!")
    judge = LLMJudge("judge", judge_server.url, name, **FAST)
    judge([pair])
    [asked] = judge_server.stats()["pairs"]
    if name.startswith("claim"):
        assert asked == "|".join(map(shown, pair)) and judge.description["normalise"] == "none"
    else:
        assert asked == "f a-18 hornet|it s a colt s foot \u2013 no 7 caf\u00e9"
        assert judge.description["normalise"] == "released"


def test_equal_pairs_after_normalisation_are_asked_once_and_nothing_left_is_malformed(judge_server, short_pauses):
    judge = LLMJudge("judge", judge_server.url, "base_single", **FAST)
    same, also, none = judge([("Colt's foot", "Dog!"), ("colt s foot", "dog"), ("colt s foot", "?!")])
    assert same == also and none.category is Category.WRONG and none.source == "form"
    assert list(judge_server.stats()["pairs"]) == ["colt s foot|dog"]


OWN = (
    "name: mine\nform: single\ncategories: [wrong, abstain, generic, less specific, specific, more "
    "specific]\nsystem: Grade.\nuser: '{pair}'\n"
)


@pytest.mark.parametrize(
    "old, new, fault",
    [
        ("form: single", "form: double", "mine.yaml: form: Input should be 'single' or 'batched'"),
        (
            "form: single",
            "form: batched",
            "mine.yaml: the file: the user text of a batched prompt holds {pairs} once, and the system text does not",
        ),
        (
            "system: Grade.",
            "system: '{pair}'",
            "mine.yaml: the file: the user text of a single prompt holds {pair} once",
        ),
        ("form: single", "form: single\nlongest: 7", "mine.yaml: longest: Input should be greater than or equal to 40"),
        ("[wrong, ", "[right, ", "mine.yaml: categories: must be the six of the scale: wrong, abstain"),
        ("system: Grade.\n", "", "mine.yaml: system: Field required"),
        ("system: Grade.", "system: [a]", "mine.yaml: system: Input should be a valid string"),
        ("system:", "sistem: x\nsystem:", "mine.yaml: sistem: Extra inputs are not permitted"),
        ("name: mine", "name: 'mine", "mine.yaml: not a YAML file: "),
        (OWN, "- a list", "mine.yaml: the file: Input should be a valid dictionary or instance of JudgePrompt"),
        (OWN, "", "mine.yaml: the file: Input should be a valid dictionary or instance of JudgePrompt"),
    ],
)
def test_faults_of_a_prompt_file_are_told_in_one_line(tmp_path, old, new, fault):
    path = tmp_path / "mine.yaml"
    path.write_text(OWN)
    assert load_judge_prompt(path).messages("{data}")[1]["content"] == "{data}"
    path.write_text(OWN.replace(old, new))
    assert message(load_judge_prompt, path).startswith(fault)


def test_an_unknown_prompt_is_told_with_the_known_ones():
    assert message(load_judge_prompt, "best").startswith(
        "unknown judge prompt 'best': use one of base_batched, base_single, "
    )


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["base_single", "base_batched"])
def test_verdicts_come_in_order_and_equal_pairs_are_asked_once(make, judge_server, prompt):
    distinct = pairs_of(60)
    pairs = distinct + distinct[::-1] + [(f" {label}\n", answer + "\u200b") for label, answer in distinct]
    seen = {}
    verdicts = make(prompt)(pairs, done=lambda at, found: seen.update(zip(at, found, strict=True)))
    assert [v.category for v in verdicts] == truth(distinct + distinct[::-1] + distinct) and {
        v.source for v in verdicts
    } == {"llm"}
    assert seen == dict(enumerate(verdicts))
    assert judge_server.stats()["calls"] == 1 + (60 if prompt == "base_single" else 4)  # the first one is the probe


def test_no_pairs_no_calls(make, judge_server):
    assert make()([]) == [] and judge_server.stats()["calls"] == 1


def test_what_cannot_be_read_is_not_sent(make, judge_server):
    verdicts = make()([("samoyed", ""), ("samoyed", " \u200b\n"), ("", "dog")])
    assert verdicts == [Verdict(Category.WRONG, "form", "malformed: nothing to read")] * 2 + [
        Verdict(None, "unknown label", "the label is empty")
    ]
    assert judge_server.stats()["calls"] == 1


def test_never_more_calls_at_once_than_allowed(make, judge_server):
    judge_server.set(delay=0.05)
    make(concurrency=64)(pairs_of(400))
    assert judge_server.stats()["max_in_flight"] == 64
    judge_server.set(delay=0.01, fail={"500": 0.3})
    make(concurrency=3)(pairs_of(60))
    assert judge_server.stats()["max_in_flight"] == 3


def test_done_is_called_in_the_thread_of_the_caller_and_before_the_end(make, judge_server):
    judge_server.set(delay=0.05)
    calls = []
    make(concurrency=4)(pairs_of(40), done=lambda at, verdicts: calls.append((threading.current_thread(), len(at))))
    assert (
        len(calls) > 3
        and {thread for thread, _ in calls} == {threading.current_thread()}
        and sum(n for _, n in calls) == 40
    )


def test_an_error_of_done_ends_the_run_and_its_calls(make, judge_server):
    judge_server.set(delay=0.05)

    def done(at, verdicts):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make(concurrency=2)(pairs_of(100), done=done)
    calls = judge_server.stats()["calls"]
    time.sleep(0.2)
    assert judge_server.stats()["calls"] == calls < 20


def test_it_works_inside_a_running_event_loop(make):
    import asyncio

    async def notebook():
        return make()([("samoyed", "dog")])

    assert [v.category for v in asyncio.run(notebook())] == truth([("samoyed", "dog")])


# --- the table of faults ----------------------------------------------------------------------------------------------


TRANSIENT = ["timeout", "429", "500", "503", "cut", "drip"]


@pytest.mark.parametrize("fault", TRANSIENT)
@pytest.mark.parametrize("prompt", ["base_single", "base_batched"])
def test_a_passing_fault_costs_a_retry_and_no_verdict(make, prompt, fault):
    pairs = [("samoyed", "dog"), ("samoyed", f"spitz fault:{fault}*2"), ("samoyed", "cat")]
    assert [v.category for v in make(prompt, timeout=1.0 if fault in ("timeout", "drip") else 10.0)(pairs)] == truth(
        pairs
    )


@pytest.mark.parametrize(
    "fault, source, reason",
    [
        ("timeout", "llm failed", "no answer in 1 s"),
        ("drip", "llm failed", "no answer in 1 s"),
        ("429", "llm failed", "status 429: Rate limit reached"),
        ("500", "llm failed", "status 500: The server had an error"),
        ("503", "llm failed", "status 503: The server had an error"),
        ("cut", "llm failed", "connection failed: "),
        ("not_json", "llm unparsable", "the server's reply is not a JSON object"),
        ("half_json", "llm unparsable", "the server's reply is not a JSON object"),
        ("no_choices", "llm unparsable", "the server's reply is no completion"),
        ("wrong_name", "llm unparsable", "the model wrote 'probably specific', which is no category"),
        ("empty", "llm unparsable", "the model wrote '', which is no category"),
    ],
)
def test_a_lasting_fault_costs_one_pair_and_no_other(make, fault, source, reason):
    pairs = [("samoyed", "dog"), ("samoyed", f"spitz fault:{fault}"), ("samoyed", "cat")]
    first, failed, last = make(retries=1, timeout=1.0 if fault in ("timeout", "drip") else 10.0)(pairs)
    assert [first.category, last.category] == truth([pairs[0], pairs[2]])
    assert failed.category is None and failed.source == source and failed.reason.startswith(reason)


@pytest.mark.parametrize("fault", ["500", "not_json", "wrong_name", "empty", "extra", "missing", "twice", "shifted"])
def test_a_bad_pair_in_a_batch_is_left_alone(make, judge_server, fault):
    pairs = pairs_of(16)
    pairs[5] = ("samoyed", f"spitz fault:{fault}")
    verdicts = make("base_batched", retries=0, batch=16)(pairs)
    expected = truth(pairs)
    expected[5] = expected[5] if fault == "twice" else None  # alone in its batch, an item given twice is the item
    assert [v.category for v in verdicts] == expected
    assert verdicts[5].source == {"500": "llm failed", "twice": "llm"}.get(fault, "llm unparsable")
    assert judge_server.stats()["calls"] <= 1 + 9  # the probe; four times halved


def test_verdicts_shifted_by_a_line_are_noticed(make, judge_server):
    judge_server.set(script=["shifted"])  # only the first call; the halves are sound
    pairs = pairs_of(8)
    assert [v.category for v in make("base_batched")(pairs)] == truth(pairs)
    assert judge_server.stats()["kinds"] == {"shifted": 1, "fine": 3}


def test_a_third_of_the_calls_failing_10000_pairs(make, judge_server):
    share = {
        "timeout": 0.01,
        "drip": 0.01,
        "429": 0.07,
        "500": 0.08,
        "503": 0.04,
        "cut": 0.08,
        "not_json": 0.015,
        "wrong_name": 0.015,
        "empty": 0.015,
    }
    judge_server.set(fail=share)
    pairs = pairs_of(4_000) * 2 + pairs_of(2_000)[::-1]
    judge, handed = make(timeout=2.0, retries=12), {}
    verdicts = judge(pairs, done=lambda at, found: handed.update(zip(at, found, strict=True)))
    stats = judge_server.stats()
    assert sum(stats["kinds"][kind] for kind in share) > 0.3 * stats["calls"]  # a third did fail
    assert handed == dict(enumerate(verdicts))  # nothing lost on the way to the store
    bad = {tuple(pair) for pair in stats["bad"]}
    for pair, right, verdict in zip(pairs, truth(pairs), verdicts, strict=True):
        assert verdict.category == (None if pair in bad else right), (
            pair,
            verdict,
        )  # nothing invented, nothing of another pair
        assert verdict.source == ("llm unparsable" if pair in bad else "llm")
    assert 120 < len(bad) < 400


def test_a_third_of_the_batches_failing_10000_pairs(make, judge_server):
    kinds = [
        "500",
        "cut",
        "429",
        "not_json",
        "no_choices",
        "wrong_name",
        "empty",
        "extra",
        "missing",
        "twice",
        "shifted",
    ]
    judge_server.set(fail=dict.fromkeys(kinds, 0.03))
    pairs = pairs_of(10_000, " in a batch")
    verdicts = make("base_batched", batch=16, give_up_after=100)(pairs)
    right = truth(pairs)
    assert all(verdict.category in (None, one) for verdict, one in zip(verdicts, right, strict=True))
    lost = [verdict for verdict in verdicts if verdict.category is None]
    assert len(lost) < 100 and {verdict.source for verdict in lost} <= {"llm unparsable", "llm failed"}


def test_a_server_that_is_started_again_in_the_middle_costs_nothing():
    server = Handle()
    pairs, again = pairs_of(600), []
    server.set(delay=0.02)

    def restart(at, verdicts):
        if not again:
            again.append(server.restart())

    try:
        judge = LLMJudge("judge", server.url, retries=8, timeout=5.0, concurrency=16)
        assert [v.category for v in judge(pairs, done=restart)] == truth(pairs) and again
        assert 0 < server.stats()["calls"] < 600  # of the second server
    finally:
        server.stop()


# --- retries ----------------------------------------------------------------------------------------------------------


def test_a_4xx_is_not_tried_again_and_ends_the_run_with_the_servers_words(make, judge_server):
    seen = {}
    said = message(
        make(concurrency=1),
        [("samoyed", "dog"), ("samoyed", "spitz fault:400"), ("samoyed", "cat")],
        done=lambda at, found: seen.update(zip(at, found)),
    )
    assert (
        said == f"{judge_server.url} refused the request (400: This is a bad request); change the request (--request "
        "FIELD=VALUE sets a field, FIELD= leaves it out) or the server"
    )
    assert judge_server.stats()["kinds"] == {"fine": 2, "400": 1} and [v.category for v in seen.values()] == truth(
        [("samoyed", "dog")]
    )


def test_the_number_of_attempts_is_as_asked(make, judge_server):
    make(retries=3)([("samoyed", "spitz fault:500")])
    assert judge_server.stats()["kinds"] == {"fine": 1, "500": 4}


# --- the judge is gone ------------------------------------------------------------------------------------------------


def test_the_run_stops_when_the_judge_is_gone_and_nothing_judged_is_lost(make, judge_server):
    judge_server.set(script=[""] * 40 + ["500"] * 10_000)
    judge, seen = make(retries=1, give_up_after=5, concurrency=8), {}
    pairs = pairs_of(1000)
    said = message(judge, pairs, kind=JudgeUnavailable, done=lambda at, found: seen.update(zip(at, found)))
    assert said == (
        f"the judge at {judge_server.url} is gone: 5 calls in a row failed (status 500: The server had an error); "
        "40 of 1,000 pairs were judged and were handed over to be stored; start the server and run again"
    )
    judged = {i: v.category for i, v in seen.items() if v.category is not None}
    assert len(judged) == 40 and all(category == truth([pairs[i]])[0] for i, category in judged.items())
    assert judge_server.stats()["calls"] < 80


def test_the_sound_half_of_a_batch_is_handed_over_before_the_judge_is_gone(make, judge_server):
    judge_server.set(script=["missing", "", "500", "500"])
    pairs, seen = pairs_of(8), {}
    message(
        make("base_batched", batch=8, retries=0, give_up_after=2),
        pairs,
        done=lambda at, found: seen.update(zip(at, found)),
    )
    assert [seen[i].category for i in range(4)] == truth(pairs[:4]) and set(seen) == {0, 1, 2, 3}


def test_without_done_it_says_that_verdicts_are_lost(make, judge_server):
    judge_server.set(script=["", "500", "500"])
    assert "1 of 9 pairs were judged and are lost, as there is no store" in message(
        make(retries=0, give_up_after=2, concurrency=1), pairs_of(9)
    )


def test_a_success_in_between_starts_the_count_again(make, judge_server):
    judge_server.set(script=["500", "500", ""] * 20)
    verdicts = make(retries=0, give_up_after=3, concurrency=1)(pairs_of(60))
    assert [v.source for v in verdicts] == ["llm failed", "llm failed", "llm"] * 20


@pytest.mark.parametrize("fault, words", [("not_json", "not a JSON object"), ("no_choices", "no completion")])
def test_a_server_that_says_hello_to_everything_is_no_judge(make, judge_server, fault, words):
    judge_server.set(script=[fault] * 100)
    assert f"is gone: 7 calls in a row failed (the server's reply is {words})" in message(
        make(give_up_after=7), pairs_of(60)
    )


def test_no_server(make, judge_server):
    said = message(lambda: LLMJudge("judge", "http://127.0.0.1:9").identity, kind=JudgeUnavailable)
    assert said.startswith("no judge at http://127.0.0.1:9/v1 (connection failed: ") and said.endswith(
        "start the server or mend base_url"
    )


# --- the probe --------------------------------------------------------------------------------------------------------


def test_the_probe_describes_the_judge(make, judge_server):
    judge_server.set(root="Qwen/Qwen3-8B")
    described = make(revision="5f0b02c").probe()
    assert described.pop("prompt_sha256") and described == {
        "judge": "llm",
        "server": judge_server.url,
        "model": "judge",
        "weights": "Qwen/Qwen3-8B",
        "revision": "5f0b02c",
        "constraint": "choice",
        "prompt": "base_single",
        "form": "single",
        "normalise": "none",
        "batch": 1,
        "temperature": 0.0,
        "votes": 1,
        "max_tokens": 8,
        "logprobs": False,
        "extra": {},
    }
    assert make("base_batched").probe()["constraint"] == "schema"


@pytest.mark.parametrize("prompt", ["base_single", "base_batched"])
@pytest.mark.parametrize(
    "how, verb",
    [("ignore", "ignores the list of allowed answers"), ("refuse", "refuses the field for allowed answers")],
)
def test_a_server_that_does_not_constrain_is_found_out_and_read_strictly(make, judge_server, caplog, prompt, how, verb):
    constrained = make(prompt).identity
    judge_server.set(constrain=how)
    judge, pairs = make(prompt), [("samoyed", "dog"), ("samoyed", "spitz fault:wrong_name")]
    assert [v.category for v in judge(pairs)] == [*truth(pairs[:1]), None]
    [record] = [record for record in caplog.records if record.name == "speciarl.judges.llm"]
    assert record.getMessage().startswith(f"the judge's server {verb}; ") and "\n" not in record.getMessage()
    assert (
        judge.description["constraint"] == {"ignore": "ignored", "refuse": "refused"}[how]
        and judge.identity != constrained
    )
    assert not {"structured_outputs", "response_format"} & set(judge_server.stats()["last"])


def test_a_model_that_is_not_there(make, judge_server):
    judge_server.set(models=["llama", "qwen"])
    assert message(make().probe) == "the server has no model 'judge'; it has llama, qwen"


def test_an_unknown_field_is_the_servers_business(make):
    said = message(make(extra={"guided_choice": ["a"]}), pairs_of(1))
    assert "refused the request (400: Extra inputs are not permitted: guided_choice)" in said
    assert make(extra={"chat_template_kwargs": {"enable_thinking": False}})(pairs_of(3))[0].category is not None


# --- keys -------------------------------------------------------------------------------------------------------------


def test_the_key_is_sent_and_never_shown(make, judge_server, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    judge_server.set(key=KEY)
    judge = make(api_key=KEY)
    verdicts = judge(pairs_of(3) + [("samoyed", "spitz fault:wrong_name"), ("samoyed", "x fault:500")])
    assert [v.category for v in verdicts[:3]] == truth(pairs_of(3))
    shown_anywhere = f"{judge!r}{judge.description}{judge.identity}{vars(judge)}{verdicts}{caplog.text}"
    assert KEY not in shown_anywhere
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert make()(pairs_of(1)) == verdicts[:1] and make().identity == judge.identity


def test_the_key_is_struck_out_of_what_the_server_says(make, judge_server):
    judge_server.set(key="another")  # this server repeats the key it was given
    assert (
        message(make(api_key=KEY).probe)
        == f"{judge_server.url} refused the request (401: Incorrect API key provided: ***); check the API key"
    )
    judge_server.set(key=None, script=["400"], words="x" * 290 + KEY)  # cut where the key is
    assert KEY[:4] not in message(make(api_key=KEY), pairs_of(1))
    judge_server.set(key=None, script=["400"], words=f"no credit\nleft on {KEY}")
    assert "no credit left on ***" in message(make(api_key=KEY), pairs_of(1))
    judge_server.set(key=None, script=["500"] * 9, words=f"no memory left for {KEY}")
    assert make(api_key=KEY, retries=0)(pairs_of(1)) == [
        Verdict(None, "llm failed", "status 500: no memory left for ***")
    ]
    judge_server.set(key=None, script=["503"] * 9, words=f"{KEY} is busy")
    assert "*** is busy" in message(make(api_key=KEY, retries=0, give_up_after=1), pairs_of(1))


def test_no_key_is_invented_and_odd_ones_are_refused(make, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert make()(pairs_of(1))[0].category is not None
    assert (
        message(make, api_key=f"{KEY}\nX: y")
        == "the API key holds spaces or characters that cannot be sent; copy it again"
    )
    assert message(LLMJudge, "judge", f"http://me:{KEY}@localhost/v1").startswith(
        "base_url holds a user, a password or a query"
    )
    assert message(LLMJudge, "judge", f"http://localhost/v1?key={KEY}").startswith(
        "base_url holds a user, a password or a query"
    )


# --- confidence and votes ---------------------------------------------------------------------------------------------


def test_confidences_from_log_probabilities(make, judge_server):
    judge = make(logprobs=True)
    verdicts = judge([("samoyed", "dog"), ("samoyed", "spitz fault:wrong_name"), ("samoyed", "")])
    assert judge.last_confidences == [pytest.approx(0.7), None, None] and verdicts[0].category is not None
    assert judge_server.stats()["last"]["top_logprobs"] == 20
    judge_server.set(logprobs=False)  # a server that ignores the field
    assert judge([("samoyed", "dog")]) == verdicts[:1] and judge.last_confidences == [None]
    assert judge.identity == make().identity  # they change no verdict


def test_votes(make, judge_server):
    judge_server.set(table={"a|b": ["generic", "wrong", "generic"], "a|c": ["wrong", "generic", "abstain"]})
    judge = make(votes=3)
    verdicts = judge([("a", "b"), ("a", "c"), ("a", "d fault:500*1"), ("a", "e fault:wrong_name")])
    assert verdicts[0] == Verdict(
        Category.GENERIC, "llm", "2 of 3 votes for generic, 1 of 3 votes for wrong"
    ) and judge.last_confidences[0] == pytest.approx(2 / 3)
    assert verdicts[1].category is None and verdicts[1].source == "llm tied"
    assert [v.category for v in verdicts[2:]] == [*truth([("a", "d fault:500*1")]), None] and judge.last_confidences[
        2:
    ] == [1.0, None]
    assert judge.temperature == 0.7 and judge_server.stats()["last"]["seed"] == 2 and judge.identity != make().identity


# --- identity and options ---------------------------------------------------------------------------------------------


def test_identity_changes_with_what_can_change_a_verdict_only(make, judge_server, tmp_path):
    judge_server.set(models=["judge", "other"])
    plain = make().identity
    assert plain == make(concurrency=2, timeout=9.0, retries=1, api_key="x", batch=3).identity == make().identity
    own = tmp_path / "mine.yaml"
    own.write_text(OWN)
    others = [
        make(revision="1").identity,
        make(temperature=0.1).identity,
        make(votes=3).identity,
        make("soft_single").identity,
        make("base_batched").identity,
    ]
    others += [
        make("base_batched", batch=4).identity,
        make(own).identity,
        make(extra={"top_p": 0.5}).identity,
        LLMJudge("other", judge_server.url).identity,
    ]
    own.write_text(OWN.replace("Grade.", "Grade!"))
    others.append(make(own).identity)
    judge_server.set(root="weights")
    others.append(make().identity)
    assert len({plain, *others}) == 1 + len(others)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"concurrency": 0}, "concurrency is 0; it must be at least 1"),
        ({"timeout": 0}, "timeout is 0; it must be at least 0.001"),
        ({"retries": -1}, "retries is -1; it must be at least 0"),
        ({"batch": 1000}, "batch is 1000; it must be at most 256"),
        ({"temperature": float("nan")}, "temperature is nan; it must be at least 0"),
        ({"votes": 3, "temperature": 0}, "3 votes at temperature 0 are all the same; give a temperature such as 0.7"),
        ({"votes": 3, "logprobs": True}, "votes and log-probabilities are two measures of confidence; choose one"),
        (
            {"prompt": "base_batched", "votes": 3},
            "votes and log-probabilities need one pair a call; choose a single prompt in place of base_batched",
        ),
        ({"extra": {"messages": []}}, "extra sets messages, which the judge sets itself; use its own option"),
        ({"base_url": "localhost:8000"}, "base_url is no http(s) address; give one such as http://localhost:8000/v1"),
        (
            {"base_url": "http://local host"},
            "base_url is no http(s) address; give one such as http://localhost:8000/v1",
        ),
        (
            {"base_url": "http://localhost:port"},
            "base_url is no http(s) address; give one such as http://localhost:8000/v1",
        ),
    ],
)
def test_options_that_make_no_sense(options, words):
    assert message(LLMJudge, **{"model": "judge", "base_url": "http://localhost:8000", **options}) == words


def test_ids_of_a_batch_are_distinct_and_do_not_count_on():
    ids = batch_ids(256)
    assert (
        len(set(ids)) == 256
        and all(after != before + 1 for before, after in itertools.pairwise(ids))
        and set(ids).isdisjoint(range(101))
    )


def test_the_server_and_the_scale_agree_on_names():
    assert NAMES == WIRE_NAMES
