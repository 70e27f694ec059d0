"""Calls to a server that fails on command: each request ends in a reply or in a reason, no run goes on for nothing."""

import asyncio
import json
import threading
import time
from dataclasses import replace

import pytest
import refusal
from hypothesis import given
from hypothesis import strategies as st
from judge_server import judge_server, judge_server_process, rule  # noqa: F401 - fixtures

from speciarl.core.calls import (
    BadReply,
    CallFailed,
    Completion,
    Refused,
    Server,
    ServerGone,
    Session,
    ask_all,
    ask_each,
    ask_one,
    find_model,
    one_line,
    weights_of,
)
from speciarl.core.scale import UserError

KEY = "sk-very-secret-0123456789"
TRANSIENT = ["timeout", "429", "500", "503", "cut", "drip"]


def body(answer: str) -> dict:
    "A request that the server answers with `rule`, or with a fault that `answer` asks for."
    pair = json.dumps({"label": "samoyed", "answer": answer})
    return {"messages": [{"role": "user", "content": pair}], "temperature": 0, "max_tokens": 8}


def right(answer: str) -> Completion:
    return Completion([rule("samoyed", answer)], finish_reasons=["stop"], served={"model": "judge"})


def outcomes(server: Server, answers: list[str], **options) -> list[Completion | CallFailed]:
    "The outcome of each request, in the order of the requests."
    found = {}
    for batch in ask_all(server, map(body, answers), **options):
        found.update(batch)
    assert sorted(found) == list(range(len(answers)))
    return [found[place] for place in range(len(answers))]


def message(action, *args, **kwargs) -> str:
    text = refusal.message(action, *args, **kwargs)
    assert KEY not in text
    return text


@pytest.fixture
def server(judge_server) -> Server:
    judge_server.set(constrain="ignore")  # nobody asks it to keep to a list here
    return Server(judge_server.url, "judge", timeout=10.0)


# --- each request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_passing_fault_is_tried_again(server, short_pauses, fault):
    answers = ["dog", f"spitz fault:{fault}*2", "cat"]
    assert outcomes(replace(server, timeout=1.0), answers) == [right(answer) for answer in answers]


@pytest.mark.parametrize(
    "fault, kind, reason",
    [
        ("timeout", CallFailed, "no answer in 1 s"),
        ("drip", CallFailed, "no answer in 1 s"),
        ("429", CallFailed, "status 429: Rate limit reached"),
        ("500", CallFailed, "status 500: The server had an error"),
        ("cut", CallFailed, "connection failed: "),
        ("not_json", BadReply, "the server's reply is not a JSON object"),
        ("half_json", BadReply, "the server's reply is not a JSON object"),
        ("no_choices", BadReply, "the server's reply is no completion"),
    ],
)
def test_a_lasting_fault_concerns_one_request_and_says_why(server, short_pauses, fault, kind, reason):
    first, failed, last = outcomes(replace(server, timeout=1.0, retries=1), ["dog", f"spitz fault:{fault}", "cat"])
    assert (first, last) == (right("dog"), right("cat"))
    assert type(failed) is kind and failed.reason.startswith(reason) and "\n" not in failed.reason


class Canned:
    "A client that gives one reply to everything."

    api_key = KEY

    def __init__(self, reply):
        self.reply = reply

    async def post(self, path, cast_to, body):
        return self.reply


@pytest.mark.parametrize(
    "reply, texts",
    [
        ({"choices": [{"message": {"content": "a"}}, {"message": {"content": None}}]}, ["a", ""]),
        ({"choices": [{"message": {"content": 3}}]}, None),
        ({"choices": [{"message": {"content": "a"}}, {"message": {"content": ["b"]}}]}, None),
        ({"choices": [{"message": {}}]}, None),
        ({"choices": [{"message": None}]}, None),
        ({"choices": ["a"]}, None),
        ({"choices": []}, None),
        ({"choices": None}, None),
        ({}, None),
        ([], None),
        ("Welcome", None),
        (None, None),
    ],
)
def test_a_completion_holds_at_least_one_text_and_nothing_but_texts(reply, texts):
    session = Session(Server("http://localhost:8000", "judge"), Canned(reply))
    if texts is None:
        with pytest.raises(BadReply, match="^the server's reply is (no completion|not a JSON object)$"):
            asyncio.run(session.chat(body("dog")))
    else:
        assert asyncio.run(session.chat(body("dog"))).texts == texts


def test_requests_are_taken_from_any_iterable_and_only_as_they_are_asked(server):
    taken = []

    def bodies():
        for i in range(1000):
            taken.append(i)
            yield body(f"answer {i}")

    calls = ask_all(replace(server, concurrency=4), bodies())
    next(calls)
    calls.close()
    assert 0 < len(taken) < 900


def test_never_more_calls_at_once_than_allowed(server, judge_server):
    judge_server.set(delay=0.02)
    outcomes(replace(server, concurrency=3), [f"answer {i}" for i in range(30)])
    assert judge_server.stats()["max_in_flight"] == 3


# --- retries and pauses -----------------------------------------------------------------------------------------------


def test_pauses_grow(server, judge_server):
    "0.5 and 1 s, each at most a quarter less."
    start = time.monotonic()
    with pytest.raises(CallFailed):
        ask_one(replace(server, retries=2), body("spitz fault:503"))
    assert 1.1 < time.monotonic() - start < 3 and judge_server.stats()["kinds"] == {"503": 3}


def test_the_pause_that_a_server_asks_for_is_kept(server, judge_server):
    judge_server.set(retry_after="0.9")
    start = time.monotonic()
    assert ask_one(server, body("spitz fault:429*1")) == right("spitz fault:429*1")
    assert time.monotonic() - start >= 0.9


def test_no_server_puts_a_run_to_sleep_for_a_day(server, judge_server):
    judge_server.set(retry_after="86400")
    start = time.monotonic()
    with pytest.raises(CallFailed, match="^status 429: Rate limit reached$"):
        ask_one(server, body("spitz fault:429"))
    assert time.monotonic() - start < 5 and judge_server.stats()["calls"] == 1


def test_the_number_of_attempts_is_as_asked(server, judge_server, short_pauses):
    with pytest.raises(CallFailed):
        ask_one(replace(server, retries=3), body("spitz fault:500"))
    assert judge_server.stats()["calls"] == 4


@pytest.mark.parametrize("fault", ["", "drip", "cut"])
def test_it_works_without_aiohttp(server, short_pauses, monkeypatch, fault):
    class Missing:
        def __init__(self, **kwargs):
            raise RuntimeError("not installed")

    monkeypatch.setattr("openai.DefaultAioHttpClient", Missing)
    answer = f"spitz fault:{fault}*1" if fault else "dog"
    assert ask_one(replace(server, timeout=1.0), body(answer)) == right(answer)


# --- what ends a run --------------------------------------------------------------------------------------------------


def test_a_refusal_is_not_tried_again_and_ends_the_run(server, judge_server):
    answers, found = ["dog", "spitz fault:400", "cat"], []
    with pytest.raises(Refused) as caught:
        for batch in ask_all(replace(server, concurrency=1), map(body, answers)):
            found += batch
    words = "This is a bad request"
    way_out = "change the request (--request FIELD=VALUE sets a field, FIELD= leaves it out) or the server"
    said = f"{server.base_url} refused the request (400: {words}); {way_out}"
    assert (caught.value.status, caught.value.words, str(caught.value)) == (400, words, said)
    assert found == [(0, right("dog"))] and judge_server.stats()["calls"] == 2


def test_a_status_may_be_the_fault_of_one_request(server):
    first, refused, last = outcomes(server, ["dog", "spitz fault:400", "cat"], request_faults=(400, 413))
    assert (first, last) == (right("dog"), right("cat"))
    assert type(refused) is CallFailed and refused.reason == "400: This is a bad request"


@pytest.mark.parametrize(
    "fault, reason",
    [("500", "status 500: The server had an error"), ("no_choices", "the server's reply is no completion")],
)
def test_many_failures_in_a_row_end_the_run(server, judge_server, fault, reason):
    judge_server.set(script=["", "", *[fault] * 100])
    patient, found = replace(server, retries=0, concurrency=1, give_up_after=5), []
    with pytest.raises(ServerGone) as caught:
        for batch in ask_all(patient, (body(f"answer {i}") for i in range(100)), request_faults=[400]):
            found += batch
    assert caught.value.reason == reason
    said = f"the server at {server.base_url} is gone: 5 calls in a row failed ({reason})"
    assert str(caught.value) == f"{said}; start the server and run again"
    assert [isinstance(outcome, Completion) for _, outcome in found] == [True, True, False, False, False, False]
    assert judge_server.stats()["calls"] == 7


def test_refused_requests_end_a_run_only_where_nothing_was_ever_answered(server, judge_server):
    patient = replace(server, concurrency=1, give_up_after=5)
    judge_server.set(script=["", *["400"] * 30, ""])
    found = outcomes(patient, [f"answer {i}" for i in range(32)], request_faults=[400])
    assert [isinstance(outcome, Completion) for outcome in found] == [True, *[False] * 30, True]
    judge_server.set(script=["400"] * 30)
    said = message(outcomes, patient, [f"answer {i}" for i in range(32)], request_faults=[400], kind=ServerGone)
    assert "5 calls in a row failed (400: This is a bad request)" in said


def test_a_success_in_between_starts_the_count_again(server, judge_server):
    judge_server.set(script=["500", "500", ""] * 10)
    found = outcomes(replace(server, retries=0, concurrency=1, give_up_after=3), [f"answer {i}" for i in range(30)])
    assert [isinstance(outcome, Completion) for outcome in found] == [False, False, True] * 10


def test_who_stops_listening_stops_the_calls(server, judge_server):
    judge_server.set(delay=0.05)
    calls = ask_all(replace(server, concurrency=2), (body(f"answer {i}") for i in range(100)))
    next(calls)
    calls.close()
    made = judge_server.stats()["calls"]
    time.sleep(0.2)
    assert judge_server.stats()["calls"] == made < 20


def test_results_arrive_in_the_thread_that_asked_and_while_the_calls_go_on(server, judge_server):
    judge_server.set(delay=0.05)
    threads, batches = set(), 0

    async def work(session, answer, put):
        put((threading.current_thread(), await session.chat(body(answer))))

    for batch in ask_each(replace(server, concurrency=4), [f"answer {i}" for i in range(40)], work):
        threads |= {thread for thread, _ in batch}
        batches += bool(batch)
    assert batches > 3 and threading.current_thread() not in threads and len(threads) == 1


def test_it_works_inside_a_running_event_loop(server):
    async def notebook():
        return ask_one(server, body("dog")), outcomes(server, ["dog", "cat"])

    assert asyncio.run(notebook()) == (right("dog"), [right("dog"), right("cat")])


# --- models and keys --------------------------------------------------------------------------------------------------


def test_the_model_is_found_or_the_others_are_named(server, judge_server):
    assert weights_of(find_model(server)) is None
    judge_server.set(root="Qwen/Qwen3-8B")
    assert weights_of(find_model(server)) == "Qwen/Qwen3-8B"
    judge_server.set(models=["llama", "qwen"])
    assert message(find_model, server) == "the server has no model 'judge'; it has llama, qwen"
    judge_server.set(models=[])
    assert message(find_model, server) == "the server has no model 'judge'; it has none"


def test_a_server_without_a_list_of_models_is_not_refused(server):
    assert find_model(replace(server, base_url=server.base_url.replace("/v1", "/nothing/here"))) == {}


def test_no_server():
    with pytest.raises(CallFailed, match="^connection failed: "):
        find_model(Server("http://127.0.0.1:9", "judge", retries=0))


def test_the_key_is_sent_and_never_shown(server, judge_server, monkeypatch):
    judge_server.set(key=KEY)
    keyed = replace(server, api_key=KEY)
    assert ask_one(keyed, body("dog")) == right("dog") and KEY not in f"{keyed}{keyed!r}{vars(keyed)}"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert ask_one(Server(judge_server.url, "judge"), body("dog")) == right("dog")
    assert "401" in message(ask_one, replace(server, api_key="another"), body("dog"))
    judge_server.set(key="another")  # this server repeats the key it was given
    said = f"{judge_server.url} refused the request (401: Incorrect API key provided: ***); check the API key"
    assert message(find_model, keyed) == said
    judge_server.set(key=None, script=["500"], words=f"no memory left\nfor {KEY}")
    with pytest.raises(CallFailed, match=r"^status 500: no memory left for \*\*\*$"):
        ask_one(replace(keyed, retries=0), body("dog"))


def test_no_key_is_invented(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert ask_one(Server(server.base_url, "judge"), body("dog")) == right("dog")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"concurrency": 0}, "concurrency is 0; it must be at least 1"),
        ({"timeout": 0}, "timeout is 0; it must be at least 0.001"),
        ({"timeout": float("nan")}, "timeout is nan; it must be at least 0.001"),
        ({"retries": -1}, "retries is -1; it must be at least 0"),
        ({"give_up_after": 0}, "give_up_after is 0; it must be at least 1"),
        ({"api_key": f"{KEY}\nX: y"}, "the API key holds spaces or characters that cannot be sent; copy it again"),
        ({"base_url": "localhost:8000"}, "base_url is no http(s) address; give one such as http://localhost:8000/v1"),
        (
            {"base_url": "http://localhost:port"},
            "base_url is no http(s) address; give one such as http://localhost:8000/v1",
        ),
        ({"base_url": None}, "base_url is no http(s) address; give one such as http://localhost:8000/v1"),
        (
            {"base_url": f"http://me:{KEY}@localhost/v1"},
            "base_url holds a user, a password or a query; give the plain address, and the key in OPENAI_API_KEY",
        ),
        (
            {"base_url": f"http://localhost/v1?key={KEY}"},
            "base_url holds a user, a password or a query; give the plain address, and the key in OPENAI_API_KEY",
        ),
    ],
)
def test_options_that_make_no_sense(options, words):
    assert message(Server, **{"base_url": "http://localhost:8000", "model": "judge", **options}) == words


@given(st.text(max_size=500))
def test_one_line_is_one_line_and_stays_as_it_is(text):
    line = one_line(text)
    assert one_line(line) == line == line.strip() and len(line.splitlines()) < 2
    line.encode()  # no lone surrogates


def test_a_mistake_in_the_work_is_not_hidden(server):
    async def work(session, item, put):
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        list(ask_each(server, [1], work))
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)
    assert not isinstance(caught.value, UserError)
