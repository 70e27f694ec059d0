"""How fast the verdict store looks up and writes, and how much memory a million verdicts take, with the ratio to each
limit.

    python benchmarks/store_speed.py [--redis] [--verdicts 1000000] [--out benchmarks/results/store_speed.txt]

"Warm" is what a run of training does: the same pairs again, from the same process. "From the store" is the first
look-up after a start. Times are of this process (wall clock); writes are of batches of 1,000, as a judge hands them
over.
"""

import argparse
import os
import platform
import random
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from speciarl.core.scale import Category
from speciarl.judges.choose import StoredJudge
from speciarl.judges.store import Store, open_store
from speciarl.judges.verdict import Verdict, identity

JUDGE = identity(judge="benchmark")
LIMIT_READ, LIMIT_WRITE, LIMIT_GB = 200_000, 20_000, 1.0
REFERENCE_WARM = 22_000  # pairs per second of the released service, all in its cache (two cores)
BATCH = 1000


def pairs_and_verdicts(n: int) -> tuple[list, list]:
    "`n` distinct pairs of 200 labels with answers of ordinary length, and verdicts on them, in random order."
    numbers = random.Random(0).sample(range(n), n)
    pairs = [(f"label number {i % 200}", f"some answer, number {i}") for i in numbers]
    return pairs, [Verdict(Category(i % 6), "benchmark", f"reason number {i % 1000}") for i in numbers]


def rate(action: Callable, n: int, repeats: int = 1) -> float:
    "Things per second: the median of `repeats` runs of `action`, which does `n`."
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return n / sorted(times)[repeats // 2]


def line(name: str, value: float, limit: float | None = None) -> str:
    return f"  {name:48}{value:>12,.0f} /s" + (f"{value / limit:>8.1f} x the limit of {limit:,}" if limit else "")


def write(store: Store, pairs: list, verdicts: list) -> None:
    for start in range(0, len(pairs), BATCH):
        store.put_many(JUDGE, pairs[start : start + BATCH], verdicts[start : start + BATCH])


class Silent:
    "A judge that is never asked."

    identity = JUDGE


def speeds(url: str, n: int, warm: int) -> Iterator[str]:
    """Lines on writing `n` verdicts to the store at `url`, reading them back, and reading `warm` of them again and
    again."""
    pairs, verdicts = pairs_and_verdicts(n)
    with open_store(url) as store:
        yield line(f"write, batches of {BATCH:,}", rate(lambda: write(store, pairs, verdicts), n), LIMIT_WRITE)
    with open_store(url) as store:
        yield line(f"look up {n:,} from the store", rate(lambda: store.get_many(JUDGE, pairs), n))
        some = pairs[:warm]
        assert store.get_many(JUDGE, some) == verdicts[:warm]
        value = rate(lambda: store.get_many(JUDGE, some), warm, 5)
        yield (
            line(f"look up {warm:,} warm", value, LIMIT_READ) + f", {value / REFERENCE_WARM:.0f} x the released service"
        )
        judge = StoredJudge(Silent(), store)
        yield line(f"judge {warm:,} warm, through StoredJudge", rate(lambda: judge(some), warm, 5))
        yield line("claim and release", rate(lambda: claim(store, 20_000), 20_000))


def claim(store: Store, n: int) -> None:
    pairs = [("new", str(i)) for i in range(n)]
    for start in range(0, n, BATCH):
        store.claim_many(JUDGE, pairs[start : start + BATCH], 60)
        store.release_many(JUDGE, pairs[start : start + BATCH])


def memory(url: str, n: int) -> float:
    "The largest memory in GB of a new process that looks up `n` verdicts at once and holds pairs and verdicts."
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import store_speed; "
        f"store_speed.hold({url!r}, {n})"
    )
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def hold(url: str, n: int) -> None:
    "Look up `n` verdicts and print the largest memory of this process in GB."
    pairs = [(f"label number {i % 200}", f"some answer, number {i}") for i in range(n)]
    with open_store(url) as store:
        found = store.get_many(JUDGE, pairs)
    assert len(found) == n and None not in found
    unit = 1 if platform.system() == "Darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9)


@contextmanager
def redis_server(folder: str) -> Iterator[str]:
    "A Redis server on a free port, saving nothing; its address."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
        stdout=subprocess.DEVNULL,
    )
    try:
        time.sleep(0.5)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def report(n: int, warm: int, redis: bool) -> Iterator[str]:
    "The lines of the report."
    yield f"$ python benchmarks/store_speed.py --verdicts {n}" + " --redis" * redis
    yield (
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; load at the start "
        f"{os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/verdicts.sqlite"
        yield f"\nSQLite, {n:,} verdicts"
        yield from speeds(path, n, warm)
        used = memory(path, n)
        yield (
            f"  {f'memory while holding {n:,}, GB':48}{used:>12.2f}   {used / LIMIT_GB:>8.2f} of the limit of "
            f"{LIMIT_GB:g}"
        )
        yield f"  {'file, bytes per verdict':48}{os.path.getsize(path) / n:>12.0f}"
    if redis:
        with tempfile.TemporaryDirectory() as folder, redis_server(folder) as url:
            yield f"\nRedis on this machine, {n:,} verdicts"
            yield from speeds(url, n, warm)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=1_000_000)
    parser.add_argument("--warm", type=int, default=200_000)
    parser.add_argument("--redis", action="store_true", help="measure a Redis server too (needs redis-server)")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    printed = []
    for text in report(options.verdicts, options.warm, options.redis):
        print(text, flush=True)
        printed.append(text)
    if options.out:
        options.out.write_text("\n".join(printed) + "\n", encoding="utf-8")
