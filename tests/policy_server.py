"""A strict, OpenAI-shaped server of a policy that sees: it reads the picture in each request and refuses what a real
server might.

In tests take the fixture `policy_server`, a `Handle`: `.url`, `.faults` (see `Handle`), `.calls`. What it answers
depends on picture, prompt and seed only, so a test can tell whether an answer went to its own picture: `expected(image,
prompt, seed, n)`.
"""

import asyncio
import base64
import hashlib
import io
from dataclasses import dataclass, field

import numpy as np
import pytest
from aiohttp import web
from PIL import Image
from serving import serving

FIELDS = {"model", "messages", "max_tokens", "temperature", "top_p", "seed", "n", "top_k", "repetition_penalty"}
RENAMED = {"max_completion_tokens": "max_tokens", "random_seed": "seed"}
WORDS = ("hooded warbler", "warbler", "bird", "dog", "None")


def expected(image: Image.Image, prompt: str, seed: int, n: int = 1) -> list[str]:
    "What the server writes about a picture."
    look = hashlib.sha256(np.asarray(image.convert("RGB")).tobytes() + prompt.encode()).digest()
    return [f"<think> {look.hex()[:8]} </think> <answer> {WORDS[(look[0] + seed + i) % 5]} </answer>" for i in range(n)]


@dataclass
class Handle:
    "A running server and what it does wrong."

    url: str = ""
    key: str | None = None
    ignores_n: bool = False
    script: list = field(
        default_factory=list
    )  # for the next calls: a status, "text" (no completion), "none" (no choices), or "" for an answer
    gone_after: int | None = None  # answers before it fails for good
    refuses: dict = field(default_factory=dict)  # field -> what is said of it, with status 400
    takes: tuple = ()  # other names of fields that this server knows, of `RENAMED`
    entry: dict = field(default_factory=lambda: {"root": "toys/policy"})  # what the list of models says of `policy`
    calls_itself: dict = field(default_factory=dict)  # in every reply: model, system_fingerprint
    refuse_width: int | None = None  # pictures of this width get status 400
    thought: int = 0  # words before an answer; a server that thinks keeps to max_tokens, a word being a token
    room: int | None = None  # tokens that a prompt and its answer may take together
    calls: int = 0
    answers: int = 0
    under_way: int = 0
    most: int = 0  # calls under way at once


def decode(body: dict) -> tuple[Image.Image, str]:
    """The picture and the prompt of a request (all texts of its turns). Raises `ValueError` if it is not of the one
    shape this server takes."""
    unknown = set(body) - FIELDS
    if unknown:
        raise ValueError(f"unknown field {min(unknown)}")
    turns = body["messages"]
    picture, *texts = [part for turn in turns for part in turn["content"]]
    if (
        [turn["role"] for turn in turns] != [("user", "assistant")[i % 2] for i in range(len(turns))]
        or len(turns) % 2 == 0
        or len(texts) != len(turns)
    ):
        raise ValueError("expected user and assistant in turn, one text each, the user last")
    if (
        picture["type"] != "image_url"
        or any(text["type"] != "text" for text in texts)
        or set(picture["image_url"]) != {"url"}
    ):
        raise ValueError("expected a picture, then texts")
    head, _, data = picture["image_url"]["url"].partition(",")
    kind = head.removeprefix("data:image/").removesuffix(";base64")
    if head != f"data:image/{kind};base64" or kind not in ("png", "jpeg", "webp"):
        raise ValueError(f"no data URL of a PNG, JPEG or WebP: {head[:40]}")
    if len(data) > 6_000_000:
        raise ValueError("the picture is larger than 6,000,000 characters")
    if not (
        isinstance(body.get("max_tokens", 1), int) and 0 <= body.get("temperature", 1) <= 2 and body.get("n", 1) >= 1
    ):
        raise ValueError("a number is out of range")
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    image.load()
    if (
        image.format != kind.upper()
        or image.width * image.height > 2_000_000
        or max(image.size) > 200 * min(image.size)
    ):
        raise ValueError("the picture is of another format than it says, too large, or a strip")
    return image.convert("RGB"), " | ".join(text["text"] for text in texts)


def failure(status: int, words: str) -> web.Response:
    return web.json_response({"error": {"message": words}}, status=status)


def written(handle: Handle, text: str, room: int) -> tuple[str, str]:
    "What of `text` there is room for, and why it ends."
    if not handle.thought:
        return text, "stop"
    words = [*["hm"] * handle.thought, *text.split(" ")]
    return " ".join(words[:room]), "stop" if len(words) <= room else "length"


def self_refused(handle: Handle, body: dict) -> list[tuple[str, str]]:
    "The fields of a request that this server does not take, with its words; 0 is refused where they say so."
    return [
        (name, words)
        for name, words in handle.refuses.items()
        if name in body and (body[name] == 0 or "0" not in (words or ""))
    ]


def routes(handle: Handle) -> list:
    async def chat(request):
        handle.calls += 1
        if handle.key and request.headers.get("Authorization") != f"Bearer {handle.key}":
            return failure(401, "wrong key")
        fault = handle.script.pop(0) if handle.script else ""
        if isinstance(fault, int):
            return failure(fault, "as told")
        if fault:
            return web.Response(text="Welcome!") if fault == "text" else web.json_response({"choices": []})
        if handle.gone_after is not None and handle.answers >= handle.gone_after:
            return failure(503, "shutting down")
        body = await request.json()
        for name, words in self_refused(handle, body):
            return failure(400, words or f"Unsupported parameter: '{name}' is not supported with this model.")
        for name in handle.takes:
            if name in body:
                body[RENAMED[name]] = body.pop(name)
        try:
            image, prompt = decode(body)
        except (ValueError, KeyError, TypeError) as error:
            return failure(400, str(error))
        room = body.get("max_tokens", 10_000)
        if handle.room is not None and room > handle.room:
            return failure(400, f"max_tokens is too large: {room}; the maximum context length is {handle.room} tokens")
        if image.width == handle.refuse_width:
            return failure(400, "the picture is too small for this model")
        handle.under_way += 1
        handle.most = max(handle.most, handle.under_way)
        await asyncio.sleep(0.002 * (image.getpixel((0, 0))[0] % 5))  # answers come out of order
        handle.under_way -= 1
        handle.answers += 1
        texts = expected(image, prompt, body.get("seed", 0), 1 if handle.ignores_n else body.get("n", 1))
        return web.json_response(
            {
                **handle.calls_itself,
                "choices": [
                    {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
                    for i, (text, reason) in enumerate(written(handle, text, room) for text in texts)
                ],
            }
        )

    async def models(request):
        return web.json_response({"data": [{"id": "policy", **handle.entry}]})

    return [web.post("/v1/chat/completions", chat), web.get("/v1/models", models)]


@pytest.fixture
def policy_server(short_pauses):
    handle = Handle()
    with serving(routes(handle), client_max_size=2**26) as address:
        handle.url = f"{address}/v1"
        yield handle
