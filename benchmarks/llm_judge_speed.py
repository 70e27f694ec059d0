"""How fast the LLM judge asks, against a local server that answers at once, and what the verdict store saves.

    python benchmarks/llm_judge_speed.py [--pairs 25600] [--distinct 4000] [--repeats 3] [--out FILE]

The load is that of the figures published for the released judge service on two cores: 25,600 pairs, 4,000 of them
distinct. The server (`tests/judge_server.py`) has a process of its own; it shares the cores with the judge, as theirs
did. Figures are medians of the repeats. The load average says how busy the machine was with other things before the
run.
"""

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from judge_server import Handle, rule

from speciarl.judges.choose import StoredJudge
from speciarl.judges.llm import LLMJudge
from speciarl.judges.store import open_store

REFERENCE = {"LLM calls": 130, "pairs, cold": 824, "pairs, warm": 22_000}  # per second
REQUEST = 2560  # pairs a call of the judge, those of one training step


def load(count: int, distinct: int, seed: int = 0) -> list[tuple[str, str]]:
    "`count` pairs of which `distinct` are different, in random order."
    different = [(f"label {i % 200}", f"an answer of usual length {i}") for i in range(distinct)]
    pairs = (different * (count // distinct + 1))[:count]
    random.Random(seed).shuffle(pairs)
    return pairs


def seconds(judge, pairs: list[tuple[str, str]]) -> float:
    "Wall time of judging `pairs`, a request at a time; every verdict is checked."
    start = time.perf_counter()
    verdicts = [verdict for at in range(0, len(pairs), REQUEST) for verdict in judge(pairs[at : at + REQUEST])]
    wall = time.perf_counter() - start
    assert all(verdict.category.wire == rule(*pair) for pair, verdict in zip(pairs, verdicts, strict=True))
    return wall


def without_store(url: str, pairs: list[tuple[str, str]], **options) -> float:
    "Pairs per second without a store."
    judge = LLMJudge("judge", url, **options)
    judge.probe()
    return len(pairs) / seconds(judge, pairs)


def without_aiohttp(url: str, pairs: list[tuple[str, str]]) -> float:
    "Calls per second with the transport that the client uses where aiohttp is not installed."
    import openai

    kept, openai.DefaultAioHttpClient = openai.DefaultAioHttpClient, openai.DefaultAsyncHttpxClient
    try:
        return without_store(url, pairs)
    finally:
        openai.DefaultAioHttpClient = kept


def measure(url: str, count: int, distinct: int) -> dict[str, float]:
    "All figures, once: per second, and the processor time of a call in milliseconds."
    pairs, different = load(count, distinct), load(distinct, distinct)
    start = time.process_time()
    found = {"LLM calls": without_store(url, different)}
    found["ms"] = (time.process_time() - start) / distinct * 1000
    found["LLM calls, transport of httpx"] = without_aiohttp(url, different)
    found["pairs, no store, 16 a call"] = without_store(url, different, prompt="base_batched")
    with tempfile.TemporaryDirectory() as folder, open_store(str(Path(folder) / "verdicts.sqlite")) as store:
        judge = StoredJudge(LLMJudge("judge", url), store)
        found["pairs, cold"] = count / seconds(judge, pairs)
        found["pairs, warm"] = count / seconds(judge, pairs)
    return found


def report(url: str, count: int, distinct: int, repeats: int) -> list[str]:
    lines = [
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}, load average "
        f"{os.getloadavg()[0]:.1f} before; medians of {repeats}"
    ]
    lines += [f"{count:,} pairs, {distinct:,} distinct, {REQUEST:,} a request, 64 calls at once", ""]
    runs = [measure(url, count, distinct) for _ in range(repeats)]
    for name in runs[0]:
        figure = statistics.median(run[name] for run in runs)
        if name == "ms":
            lines.append(f"{'  processor time of the judge for a call':44}{figure:9.2f} ms")
        else:
            ratio = (
                f"{figure / REFERENCE[name]:7.1f} x the reference ({REFERENCE[name]:,})" if name in REFERENCE else ""
            )
            lines.append(f"{name + ' store' * name.endswith(('cold', 'warm')):44}{figure:9,.0f} /s{ratio}")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=25_600)
    parser.add_argument("--distinct", type=int, default=4_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the command and the figures to this file, too")
    options = parser.parse_args()
    server = Handle()
    server.set(instant=True)
    try:
        text = (
            "\n".join(
                [
                    "$ python benchmarks/llm_judge_speed.py",
                    *report(server.url, options.pairs, options.distinct, options.repeats),
                ]
            )
            + "\n"
        )
    finally:
        server.stop()
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")
