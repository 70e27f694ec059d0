"""A strict, OpenAI-shaped judge server that fails on command, in its own process on localhost.

    python tests/judge_server.py [--port 8765]        prints its base URL, then serves until it is stopped

In tests: `from judge_server import judge_server, judge_server_process` and take the fixture `judge_server`, a `Handle`:

    judge_server.url                      base URL for a client
    judge_server.set(key="secret")        change a setting (see `Settings`); every test starts with the defaults
    judge_server.stats()                  what it has served so far, and how often it was asked about each pair
    rule(label, answer)                   the verdict it gives a pair, so that a test can tell one pair from another

Faults come in three ways: by a marker in the answer of a pair (`"spitz fault:500*2"` fails that call twice), by
`script` (a list of faults for the next calls), and by `fail` (a share of all calls, drawn by hash, so that a run can be
repeated exactly). It refuses fields it does not know, as a real server may, and never logs a request.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import math
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass, field, fields

import pytest
from aiohttp import web

NAMES = ("wrong", "abstain", "generic", "less specific", "specific", "more specific")
FIELDS = {
    "model",
    "messages",
    "temperature",
    "max_tokens",
    "top_p",
    "seed",
    "structured_outputs",
    "response_format",
    "logprobs",
    "top_logprobs",
    "chat_template_kwargs",
}
KNOWN = {  # the pairs by which a judge finds out whether it is one; asking about them is not counted, nor does it fail
    ("Siamese cat", "Siamese cat"): "specific",
    ("Siamese cat", "bicycle"): "wrong",
    ("Siamese cat", "animal"): "generic",
}
THOUGHT = "Okay, the user gives a label and an answer, so I compare them. " * 4
MARKER = re.compile(r"fault:([a-z0-9_]+)(?:\*(\d+))?")
# a fault comes before an answer (status, broken connection), in its shape, in its text, or in a batch of verdicts
UNANSWERED = ("timeout", "429", "500", "503", "cut", "drip", "400")
UNREADABLE = (
    "not_json",
    "half_json",
    "no_choices",
    "wrong_name",
    "empty",
    "extra",
    "missing",
    "twice",
    "shifted",
)  # there is an answer, and no verdict in it
FAULTS = (*UNANSWERED, *UNREADABLE)


@dataclass
class Settings:
    """How the server behaves. `constrain`: yes, ignore (answers 200 as if the field were not there) or refuse (400
    naming the field). `known`: what it says of `KNOWN` pairs: right, or any text. `thinks`: where its model's thoughts
    go (reasoning_content, reasoning, or text: into the text itself; empty: it does not think); `quiet`: what becomes of
    the field that switches them off: yes, ignore or refuse. `every`: every so manyth call on pairs fails (500);
    `dies_after`: so many calls on pairs, all fail."""

    key: str | None = None
    models: list = field(default_factory=lambda: ["judge"])
    root: str | None = None  # the weights behind the name, as vLLM tells them
    constrain: str = "yes"
    logprobs: bool = True
    refuses: list = field(default_factory=list)  # fields that are refused by name, with status 400
    longest: str = "max_tokens"  # the name of that field here
    delay: float = 0.0
    retry_after: str | None = "0"
    words: str = ""  # of an error, in place of its own
    fail: dict = field(default_factory=dict)  # fault -> share of calls
    script: list = field(default_factory=list)  # faults (or "") of the next calls
    seed: int = 0
    table: dict = field(default_factory=dict)  # "label|answer" -> list of names, one per vote; in place of the rule
    known: str = "right"
    thinks: str = ""
    quiet: str = "yes"
    every: int = 0
    dies_after: int = 0
    instant: bool = False  # no marks, no faults, no statistics: for measuring clients


def as_known(pair: dict) -> tuple[str, str]:
    "A pair as `KNOWN` spells it, also where the client has written it in lower case."
    return pair["label"].replace("siamese", "Siamese"), pair["answer"].replace("siamese", "Siamese")


def rule(label: str, answer: str) -> str:
    "The verdict on a pair: anything, but always the same, and different for different pairs five times of six."
    return NAMES[hashlib.sha256(f"{label}|{answer}".encode()).digest()[0] % 6]


class Refusal(Exception):
    "A request that is answered with an error status."

    def __init__(self, status: int, words: str, headers: dict | None = None):
        self.status, self.words, self.headers = status, words, headers


def checked(request: dict, settings: Settings) -> None:
    "Refuse what is not a request of the known shape."
    for name in settings.refuses:
        if name in request:
            raise Refusal(400, f"Unsupported value: '{name}' is not supported with this model.")
    if settings.longest in request:
        request["max_tokens"] = request.pop(settings.longest)
    elif "max_tokens" in request:
        raise Refusal(400, f"'max_tokens' is not supported with this model. Use '{settings.longest}' instead.")
    unknown = sorted(set(request) - FIELDS)
    if unknown:
        raise Refusal(400, f"Extra inputs are not permitted: {unknown[0]}")
    if request.get("model") not in settings.models:
        raise Refusal(404, f"The model `{request.get('model')}` does not exist.")
    messages = request.get("messages")
    if not messages or any(
        set(m) != {"role", "content"} or m["role"] not in ("system", "user") or not isinstance(m["content"], str)
        for m in messages
    ):
        raise Refusal(400, "messages: a list of role (system, user) and content (text) is required")
    if messages[-1]["role"] != "user":
        raise Refusal(400, "messages: the last one must be the user's")
    for name, kinds in {
        "temperature": (int, float),
        "max_tokens": int,
        "logprobs": bool,
        "top_logprobs": int,
        "seed": int,
        "structured_outputs": dict,
    }.items():
        if name in request and not isinstance(request[name], kinds):
            raise Refusal(400, f"{name}: wrong type")
    if settings.constrain == "refuse":
        for name in ("structured_outputs", "response_format"):
            if name in request:
                raise Refusal(400, f"Unrecognized request argument supplied: {name}")
    if settings.quiet == "refuse" and "chat_template_kwargs" in request:
        raise Refusal(400, "Extra inputs are not permitted: chat_template_kwargs")
    if set(request.get("structured_outputs", {})) - {"choice"}:
        raise Refusal(400, "structured_outputs: only choice is served here")
    if "response_format" in request and request["response_format"].get("type") != "json_schema":
        raise Refusal(400, "response_format: only json_schema is served here")


def pairs_of(request: dict) -> list[dict]:
    "The pairs in the last message: every line that is a JSON object with label and answer."
    found = []
    for line in request["messages"][-1]["content"].splitlines():
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                item = json.loads(line)
                if {"label", "answer"} <= item.keys():
                    found.append(item)
    return found


def first_of_schema(schema: dict) -> object:
    "The first value that fits a JSON schema (only what judges ask for: object, array, enum, integer, string)."
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: first_of_schema(part) for name, part in schema["properties"].items()}
    if schema.get("type") == "array":
        return [first_of_schema(schema["items"])] * schema.get("minItems", 0)
    return 1 if schema.get("type") == "integer" else "text"


class Server:
    def __init__(self):
        self.settings = Settings()
        self.reset()

    def reset(self) -> None:
        self.asked: Counter = Counter()  # content -> calls
        self.pairs: Counter = Counter()  # "label|answer" -> calls
        self.kinds: Counter = Counter()
        self.bad: set = set()  # pairs that got an answer no one can read
        self.calls = self.in_flight = self.max_in_flight = self.probes = self.on_pairs = 0
        self.last: dict = {}

    # what is served

    async def control(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.settings = Settings(**{**asdict(self.settings), **await request.json()})
            self.reset()
        return web.json_response(
            {
                "calls": self.calls,
                "probes": self.probes,
                "in_flight": self.in_flight,
                "max_in_flight": self.max_in_flight,
                "kinds": self.kinds,
                "pairs": self.pairs,
                "bad": sorted(self.bad),
                "last": self.last,
            }
        )

    async def health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def models(self, request: web.Request) -> web.Response:
        if refused := self.authorise(request):
            return refused
        extra = {"root": self.settings.root} if self.settings.root else {}
        return web.json_response(
            {
                "object": "list",
                "data": [
                    {"id": name, "object": "model", "created": 0, "owned_by": "tests", **extra}
                    for name in self.settings.models
                ],
            }
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        if refused := self.authorise(request):
            return refused
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            return await self.answer(request)
        except Refusal as refusal:
            return error(refusal.status, self.settings.words or refusal.words, refusal.headers)
        finally:
            self.in_flight -= 1

    def authorise(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        if self.settings.key and given != f"Bearer {self.settings.key}":
            return error(
                401, self.settings.words or f"Incorrect API key provided: {given.removeprefix('Bearer ')}"
            )  # some servers say it back
        return None

    async def answer(self, http: web.Request) -> web.StreamResponse:
        request = json.loads(await http.read())
        pairs = pairs_of(request)
        if pairs and all(as_known(pair) in KNOWN for pair in pairs):
            checked(request, self.settings)
            self.probes += 1
            return completion(request, self.text(request, pairs, 0), self.settings)
        self.calls += 1
        checked(request, self.settings)
        if self.settings.instant:
            return completion(request, self.text(request, pairs, 0), self.settings)
        content = request["messages"][-1]["content"]
        attempt = self.asked[content]
        self.asked[content] += 1
        self.pairs.update(f"{pair['label']}|{pair['answer']}" for pair in pairs)
        self.last = request
        if self.settings.delay:
            await asyncio.sleep(self.settings.delay)
        fault = self.fault(pairs, content, attempt)
        self.kinds[fault or "fine"] += 1
        return await self.fail(http, request, pairs, fault) or completion(
            request, self.text(request, pairs, attempt, fault), self.settings
        )

    # faults

    def fault(self, pairs: list[dict], content: str, attempt: int) -> str:
        if self.settings.script and pairs:
            return self.settings.script.pop(0)
        for pair in pairs:
            marker = MARKER.search(pair["answer"])
            if marker and attempt < int(marker[2] or 10**9):
                return marker[1]
        draw = (
            int.from_bytes(hashlib.sha256(f"{self.settings.seed}|{attempt}|{content}".encode()).digest()[:6], "big")
            / 2**48
        )
        self.on_pairs += bool(pairs)
        every, dies = self.settings.every, self.settings.dies_after
        if pairs and ((every and self.on_pairs % every == 0) or (dies and self.on_pairs > dies)):
            return "500"
        for kind, share in self.settings.fail.items() if pairs else ():
            draw -= share
            if draw < 0:
                return kind
        return ""

    async def fail(self, http: web.Request, request: dict, pairs: list[dict], fault: str) -> web.StreamResponse | None:
        "The broken response that a fault makes; None if the fault is in the text of the answer, or there is none."
        if fault in UNREADABLE:
            self.bad |= {(pair["label"], pair["answer"]) for pair in pairs}
        if fault == "timeout":
            await asyncio.sleep(20)
        if fault == "drip":
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(http)
            for _ in range(200):
                await response.write(b" ")
                await asyncio.sleep(0.1)
            return response
        if fault == "cut":
            response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
            await response.prepare(http)
            await response.write(b'{"id": "half of an ans')
            http.transport.abort()
            return response
        if fault == "429":
            raise Refusal(
                429,
                "Rate limit reached",
                {"Retry-After": self.settings.retry_after} if self.settings.retry_after else None,
            )
        if fault in ("400", "500", "503"):
            raise Refusal(int(fault), {"400": "This is a bad request"}.get(fault, "The server had an error"))
        if fault == "not_json":
            return web.Response(text="<html>Welcome to the network of this hotel</html>", content_type="text/html")
        if fault == "half_json":
            return web.Response(text='{"choices": [{"message": ', content_type="application/json")
        if fault == "no_choices":
            return web.json_response({"object": "chat.completion", "choices": []})
        return None

    # answers

    def text(self, request: dict, pairs: list[dict], attempt: int, fault: str = "") -> str:
        constrained = self.settings.constrain == "yes"
        choice = request.get("structured_outputs", {}).get("choice")
        if not pairs:  # some other question: only a constraint can bring about an expected answer
            if constrained and "response_format" in request:
                return json.dumps(first_of_schema(request["response_format"]["json_schema"]["schema"]))
            return choice[-1] if constrained and choice else "Blue, on most days."
        names = [self.verdict(pair, attempt) for pair in pairs]
        if names[0] not in NAMES:
            return names[0]
        if "id" not in pairs[0]:
            text = {"wrong_name": "probably specific", "empty": ""}.get(fault, names[0])
            return text if not choice or text in choice or not constrained or fault else choice[0]
        items = [{"id": pair["id"], "category": name} for pair, name in zip(pairs, names)]
        return json.dumps({"verdicts": broken(items, fault)})

    def verdict(self, pair: dict, attempt: int) -> str:
        right = KNOWN.get(as_known(pair))
        if right:
            return right if self.settings.known == "right" else self.settings.known
        votes = self.settings.table.get(f"{pair['label']}|{pair['answer']}")
        return votes[attempt % len(votes)] if votes else rule(pair["label"], pair["answer"])


def broken(items: list[dict], fault: str) -> list[dict]:
    "A batch of verdicts with the fault in it."
    if fault == "wrong_name":
        items[-1]["category"] = "right"
    if fault == "extra":
        items.append({"id": 7, "category": "specific"})
    if fault == "twice":
        items[-1] = dict(items[0])
    if fault == "missing":
        items.pop(0)
    if fault == "shifted":  # the verdicts of the wrong lines under ids that count on by themselves
        items = [{"id": at, "category": item["category"]} for at, item in enumerate(items)]
    return [] if fault == "empty" else items


def error(status: int, words: str, headers: dict | None = None) -> web.Response:
    return web.json_response(
        {"error": {"message": words, "type": "error", "param": None, "code": status}}, status=status, headers=headers
    )


def logprobs(text: str, count: int) -> dict:
    """Seven tenths of the mass on the first letter of the text, the rest on the other five, off-list tokens as
    servers show masked ones."""
    letters = [name[0] for name in NAMES]
    top = [
        {"token": letter, "logprob": math.log(0.7 if letter == text[:1] else 0.06), "bytes": None} for letter in letters
    ]
    top += [{"token": "The", "logprob": -9999.0, "bytes": None}]
    top.sort(key=lambda item: -item["logprob"])
    return {"content": [{"token": text[:1], "logprob": top[0]["logprob"], "bytes": None, "top_logprobs": top[:count]}]}


def completion(request: dict, text: str, settings: Settings) -> web.Response:
    limit = 4 * request.get("max_tokens", 10_000)  # characters: a limit that is too small must show
    message: dict = {"role": "assistant", "content": text[:limit]}
    quiet = settings.quiet == "yes" and request.get("chat_template_kwargs", {}).get("enable_thinking") is False
    if settings.thinks == "text" and not quiet:
        text = f"<think>\n{THOUGHT}</think>\n\n{text}"
        message["content"] = text[:limit]
    elif settings.thinks and not quiet:  # as vLLM does: no content before the thought is over
        message |= {"content": text if len(THOUGHT) < limit else None, settings.thinks: THOUGHT[:limit]}
        text = THOUGHT + text
    choice = {"index": 0, "message": message, "finish_reason": "stop" if len(text) <= limit else "length"}
    choice["logprobs"] = (
        logprobs(text, request.get("top_logprobs", 0)) if request.get("logprobs") and settings.logprobs else None
    )
    return web.json_response(
        {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
    )


async def serve(port: int) -> None:
    server = Server()
    app = web.Application(client_max_size=64 * 2**20)
    app.add_routes(
        [
            web.get("/health", server.health),
            web.get("/v1/models", server.models),
            web.post("/v1/chat/completions", server.chat),
            web.get("/control", server.control),
            web.post("/control", server.control),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=1024)
    await site.start()
    print(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.Event().wait()


class Handle:
    "A server in its own process."

    def __init__(self, port: int = 0):
        self.start(port)

    def start(self, port: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--port", str(port)], stdout=subprocess.PIPE, text=True
        )
        self.url = self.process.stdout.readline().strip()
        assert self.url, "the server did not start"

    def _control(self, settings: dict | None = None) -> dict:
        data = None if settings is None else json.dumps(settings).encode()
        request = urllib.request.Request(self.url.removesuffix("/v1") + "/control", data)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def set(self, **settings) -> None:
        "Change settings; counts start again."
        unknown = set(settings) - {field.name for field in fields(Settings)} | set(settings.get("fail", {})) - set(
            FAULTS
        )
        assert not unknown, unknown
        self._control(settings)

    def stats(self) -> dict:
        return self._control()

    def restart(self) -> bool:
        "Kill the server and start a new one at the same address, with the settings of a new one."
        self.stop()
        self.start(int(self.url.rsplit(":", 1)[1].split("/")[0]))
        return True

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="session")
def judge_server_process():
    handle = Handle()
    yield handle
    handle.stop()


@pytest.fixture
def judge_server(judge_server_process):
    judge_server_process.set(**asdict(Settings()))
    return judge_server_process


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=8765, help="0 for any free one")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().port))
