"""Ask a server that fails a third of all calls, kill `speciarl evaluate` with signal 9 at random moments, start two
runs in one folder, fill the disk at each of ten writes: nothing may be lost, nothing invented, and what comes of it in
the end is what a run that was left alone gives, byte by byte. Run by `make soak`; not a pytest module.

python tests/soak_runs.py            10,000 calls, 20 kills, 5 pairs of runs, 10 full disks
python tests/soak_runs.py 500 3 1 10
"""

import argparse
import asyncio
import errno
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from PIL import Image

KINDS = ("429", "500", "half", "nothing", "late")  # in equal shares


# The server, in a process of its own


def serve(share: float, delay: float) -> None:
    "Answer as `policy_server.expected` does after `delay` seconds, but for a `share` of the calls, drawn by hash."
    from aiohttp import web
    from policy_server import decode, expected

    attempts: Counter = Counter()
    kinds: Counter = Counter()

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        image, prompt = decode(body)
        name = hashlib.sha256(image.tobytes()).hexdigest()
        attempts[name] += 1
        draw = random.Random(f"{name}|{attempts[name]}")
        kind = draw.choice(KINDS) if draw.random() < share else "fine"
        kinds[kind] += 1
        if kind in ("429", "500"):
            return web.json_response({"error": {"message": "as drawn"}}, status=int(kind))
        if kind == "nothing":
            return web.Response(text="")
        if kind == "half":
            response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "5000"})
            await response.prepare(request)
            await response.write(b'{"choices": [{"message": {"content": "<answer> hal')
            request.transport.abort()
            return response
        await asyncio.sleep(600 if kind == "late" else delay)
        text = expected(image, prompt, body.get("seed", 0))[0]
        return web.json_response({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "policy", "root": "toys/policy"}]})

    async def told(request: web.Request) -> web.Response:
        return web.json_response(kinds)

    async def main() -> None:
        app = web.Application()
        app.add_routes(
            [web.post("/v1/chat/completions", chat), web.get("/v1/models", models), web.get("/v1/told", told)]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())


@contextmanager
def server(share: float = 0.0, delay: float = 0.0) -> Iterator[str]:
    "The address of a running server."
    command = [sys.executable, __file__, "--serve", str(share), str(delay)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def told(url: str) -> dict[str, int]:
    "What the server did, by kind."
    import json
    import urllib.request

    with urllib.request.urlopen(f"{url}/told", timeout=30) as response:
        return json.load(response)


# What is asked, and what comes of it


def pictures(folder: Path, count: int) -> list:
    "Samples with pictures of their own, in `folder`."
    from speciarl.core.files import write_csv
    from speciarl.data.samples import Sample

    folder.mkdir(parents=True)
    samples = []
    for number in range(count):
        path = folder / f"{number:05d}.png"
        Image.new("RGB", (8, 8), (number % 5, number // 5 % 256, number // 1280)).save(path)
        samples.append(Sample(path.name, path, "ovenbird", "birds"))
    write_csv(folder / "labels.csv", ["file", "label", "dataset"], [[s.id, s.label, s.dataset] for s in samples])
    return samples


def files_of(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(run.iterdir()) if path.name != ".lock"}


def evaluated(url: str, samples: list, run: Path, **options):
    from speciarl.data.trees import load_trees
    from speciarl.judges.tree import TreeJudge
    from speciarl.metrics.runs import evaluate
    from speciarl.policy.server import ServerEngine

    return evaluate(ServerEngine("policy", url, **options), samples, run, TreeJudge(load_trees(["birds"])))


def failing_calls(folder: Path, calls: int, say=print) -> int:
    """A run of `calls` pictures against a server that fails a third of all calls, started again until all are
    answered. Returns how often it was started."""
    from policy_server import expected

    from speciarl.core.files import read_jsonl
    from speciarl.policy.prompts import load_prompt

    samples, began, starts, unanswered = pictures(folder / "many", calls), time.monotonic(), 0, [calls]
    quick = {"INITIAL_RETRY_DELAY": 0.01, "MAX_RETRY_DELAY": 0.1}  # seconds between two attempts
    with server(1 / 3) as url, mock.patch.multiple("openai._base_client", **quick):
        while unanswered[-1]:
            before = files_of(folder / "failing") if starts else {}
            card = evaluated(url, samples, folder / "failing", timeout=1.0, retries=2)
            starts += 1
            unanswered.append(card["counts"]["unanswered"])
            assert unanswered[-1] < unanswered[-2] and starts < 20, unanswered
            kept = [row for row in before.get("predictions.jsonl", b"").split(b"\n") if row and b'"error"' not in row]
            assert set(kept) <= set(files_of(folder / "failing")["predictions.jsonl"].split(b"\n")), "lost"
        kinds = told(url)
    rows = list(read_jsonl(folder / "failing" / "predictions.jsonl"))
    assert [row["sample_id"] for row in rows] == [sample.id for sample in samples]
    prompt = load_prompt("general")
    for row, sample in zip(rows, samples):
        with Image.open(sample.image) as image:
            assert row["text"] == expected(image, prompt, 0)[0], row
    with server() as url:
        whole = evaluated(url, samples, folder / "left alone")
    assert whole == card and files_of(folder / "left alone") == files_of(folder / "failing")
    say(
        f"{calls:,} pictures in {time.monotonic() - began:.0f} s: the server was called {sum(kinds.values()):,} times "
        f"({', '.join(f'{kind} {count:,}' for kind, count in sorted(kinds.items()))}); unanswered after each start: "
        f"{', '.join(map(str, unanswered[1:]))}; every answer is its picture's, and all bytes are those of a run alone"
    )
    return starts


def start(folder: Path, url: str, run: str) -> subprocess.Popen:
    "The command, in a process of its own."
    command = [sys.executable, "-m", "speciarl.cli", "evaluate", "--engine", "openai", "--base-url", url]
    command += ["--model", "policy", "--data", "photos", "--out", run]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def killed(folder: Path, kills: int, seed: int = 0, say=print) -> int:
    "Kill the command at random moments and start it again. Returns the kills that met answers."
    pictures(folder / "photos", 120)
    chance, done, met, number = random.Random(seed), 0, 0, 0
    with server(delay=0.4) as url:
        began = time.monotonic()
        assert start(folder, url, "whole").wait() == 0
        length, whole = time.monotonic() - began, files_of(folder / "whole")
        while done < kills:
            number += 1
            run, ended, here = folder / f"killed {number}", False, 0
            while not ended:
                last = done >= kills or here >= 5
                process = start(folder, url, run.name)
                try:
                    _, error = process.communicate(timeout=None if last else chance.uniform(0.2, 1.1) * length)
                    assert process.returncode == 0, error
                    ended = True
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    done, here = done + 1, here + 1
                    stream = run / "predictions.jsonl"
                    met += stream.exists() and stream.stat().st_size > 0
            assert files_of(run) == whole, "other bytes"
    say(
        f"{kills} kills of runs of {length:.1f} s, {met} when there were answers: the same {len(whole)} files each time"
    )
    return met


def two_at_once(folder: Path, pairs: int, say=print) -> int:
    "Start the command twice in one folder. Returns how often the second was refused."
    if not (folder / "photos").exists():
        pictures(folder / "photos", 120)
    refused = 0
    with server(delay=0.4) as url:
        assert start(folder, url, "one").wait() == 0
        for number in range(pairs):
            both = [start(folder, url, f"pair {number}") for _ in range(2)]
            ends = sorted((process.returncode, error) for process in both for error in [process.communicate()[1]])
            assert ends[0][0] == 0, ends
            if ends[1][0]:
                refused += 1
                assert ends[1] == (
                    2,
                    f"error: pair {number}: another process is at work on this run; wait for it, or choose another "
                    "--out\n",
                )
            assert files_of(folder / f"pair {number}") == files_of(folder / "one")
    say(f"{pairs} pairs of runs in one folder: {refused} times the second was refused, and the same files each time")
    return refused


class FullDisk:
    "A disk that is full at write number `at` (0: never), half of which it still takes; `writes` have been made."

    def __init__(self, at: int):
        self.at, self.writes = at, 0

    def handle(self, file):
        disk = self

        class Handle:
            def __getattr__(self, name):
                return getattr(file, name)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, data):
                disk.writes += 1
                if disk.writes == disk.at:
                    file.write(data[: len(data) // 2])
                    file.flush()
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return file.write(data)

            def writelines(self, lines):
                for line in lines:
                    self.write(line)

        return Handle()

    @contextmanager
    def mounted(self) -> Iterator[None]:
        "Whatever the package writes goes to this disk."
        from speciarl.core import files

        def opened(path, mode="r", **how):
            file = open(path, mode, **how)
            return self.handle(file) if mode == "ab" else file

        fdopen = os.fdopen

        def handed(handle, mode="r", **how):
            file = fdopen(handle, mode, **how)
            return self.handle(file) if "w" in mode and isinstance(handle, int) and mode in ("w", "wb") else file

        with mock.patch.object(files, "open", opened, create=True), mock.patch.object(files.os, "fdopen", handed):
            yield


def full_disks(folder: Path, times: int = 10, say=print) -> int:
    "Fill the disk at each of so many writes, evenly spread over a run. Returns the writes of a whole run."
    from speciarl.core.scale import UserError

    samples = pictures(folder / "few", 12)
    with server() as url:
        disk = FullDisk(0)
        with disk.mounted():
            evaluated(url, samples, folder / "room", concurrency=1)
        whole, last = files_of(folder / "room"), disk.writes
        for number in range(times):
            at = 1 + number * (last - 1) // max(1, times - 1)
            run = folder / f"full at {at}"
            try:
                with FullDisk(at).mounted():
                    evaluated(url, samples, run, concurrency=1)
                raise AssertionError(f"nobody noticed that write {at} failed")
            except UserError as error:
                assert "No space left on device; make room and run again" in str(error), error
            assert not list(run.glob(".*.*")), "half a file is left"
            evaluated(url, samples, run, concurrency=1)
            assert files_of(run) == whole, f"other bytes after a disk that was full at write {at}"
    say(f"a full disk at {times} of the {last} writes of a run: one line each time, and the same files after it")
    return last


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=[10_000, 20, 5, 10])
    parser.add_argument("--serve", type=float, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
    calls, kills, pairs, disks = options.sizes
    with tempfile.TemporaryDirectory(prefix="soak ü ") as folder:
        failing_calls(Path(folder) / "a", calls)
        killed(Path(folder) / "b", kills)
        two_at_once(Path(folder) / "b", pairs)
        full_disks(Path(folder) / "c", disks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
