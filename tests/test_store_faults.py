"""Many processes on one store: each pair is judged once in all, and a process killed in the middle costs nothing
that was acknowledged."""

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from test_store import redis_port, url  # noqa: F401 - fixtures

from speciarl.core.scale import Category
from speciarl.judges.choose import StoredJudge
from speciarl.judges.store import open_store
from speciarl.judges.verdict import Verdict

# Judges PAIRS start..stop. What was asked and what was acknowledged is appended to a file, one line each, before
# anything else can happen.
WORKER = """
import os, sys, time
from speciarl.core.scale import Category
from speciarl.judges.choose import StoredJudge
from speciarl.judges.store import open_store
from speciarl.judges.verdict import Verdict

url, log, start, stop, ttl, delay = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(kind, pairs):
    os.write(log, "".join(f"{kind} {answer}\\n" for _, answer in pairs).encode())

class Slow:
    identity = "slow"
    def __call__(self, pairs, datasets=None, done=None):
        for at in range(0, len(pairs), 5):
            part = pairs[at : at + 5]
            note("asked", part)
            time.sleep(delay)
            done(range(at, at + len(part)), [Verdict(Category(int(answer) % 6), "slow", answer) for _, answer in part])
            note("stored", part)
        return [Verdict(Category(int(answer) % 6), "slow", answer) for _, answer in pairs]

pairs = [("label", str(i)) for i in range(int(start), int(stop))]
with open_store(url) as store:
    verdicts = StoredJudge(Slow(), store, chunk=20, ttl=ttl)(pairs)
assert [v.reason for v in verdicts] == [answer for _, answer in pairs], "a verdict of another pair"
assert [v.category for v in verdicts] == [int(answer) % 6 for _, answer in pairs]
"""


def start(url, log, first, last, ttl=60.0, delay=0.002, count=1):
    command = [sys.executable, "-c", WORKER, url, str(log), *map(str, (first, last, ttl, delay))]
    return [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(count)]


def finish(processes) -> list[str]:
    "What the processes wrote to stderr; they must have ended well."
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), errors
    return errors


def noted(log, kind) -> Counter:
    return Counter(line.split()[1] for line in log.read_text().splitlines() if line.startswith(kind))


def check_sound(url, n):
    "The store is whole and has the right verdict for each of `n` pairs."
    pairs = [("label", str(i)) for i in range(n)]
    with open_store(url) as store:
        assert store.get_many("slow", pairs) == [Verdict(Category(i % 6), "slow", str(i)) for i in range(n)]
        assert store.count() == n and store.claim_many("slow", pairs, 60) == [False] * n
    if "://" not in url:
        connection = sqlite3.connect(url)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM claims").fetchone() == (0,)
        connection.close()


def test_sixteen_processes_pay_once_for_each_pair(url, tmp_path):
    log = tmp_path / "log"
    processes = [
        process for i in range(16) for process in start(url, log, 20 * i, 20 * i + 400)
    ]  # each overlaps with all others
    assert finish(processes) == [""] * 16
    assert noted(log, "asked") == noted(log, "stored") == Counter(map(str, range(700)))
    check_sound(url, 700)


def test_killed_processes_lose_nothing_acknowledged_and_are_taken_over(url, tmp_path):
    log = tmp_path / "log"
    doomed = start(url, log, 0, 200, ttl=2, delay=0.1, count=3)
    while not log.exists() or noted(log, "stored").total() < 30:
        assert all(process.poll() is None for process in doomed)
        time.sleep(0.02)
    for process in doomed:
        process.send_signal(signal.SIGKILL)
    for process in doomed:
        process.communicate()
    acknowledged, asked = noted(log, "stored"), noted(log, "asked")
    with open_store(url) as store:
        kept = store.get_many("slow", [("label", answer) for answer in acknowledged])
        assert [v.reason for v in kept] == list(acknowledged)
    finish(start(url, log, 0, 200, ttl=2, count=2))
    again = noted(log, "asked") - Counter(map(str, range(200)))
    assert (
        set(again) <= set(asked) - set(acknowledged) and again.total() <= 15
    )  # only what the dead had asked and could not store
    check_sound(url, 200)


def test_a_slow_judge_keeps_its_claims(url, tmp_path):
    log = tmp_path / "log"
    finish(start(url, log, 0, 5, ttl=2, delay=4.0, count=2))
    assert noted(log, "asked") == Counter(map(str, range(5)))


def test_what_another_process_could_not_judge_is_tried_here(url):
    pair = ("label", "1")
    with open_store(url) as ours, open_store(url) as theirs:
        theirs.claim_many("j", [pair], 0.2)  # and then nothing: the process is dead

        def judge(pairs, datasets=None, done=None):
            return [Verdict(Category.GENERIC, "j")] * len(pairs)

        judge.identity = "j"
        assert StoredJudge(judge, ours, ttl=1)([pair]) == [Verdict(Category.GENERIC, "j")]


def test_verdicts_may_arrive_from_another_thread(url):
    "As from a judge that runs an event loop of its own beside the notebook's."
    pairs = [("label", str(i)) for i in range(40)]

    def judge(pairs, datasets=None, done=None):
        verdicts = [Verdict(Category.GENERIC, "j", answer) for _, answer in pairs]
        threads = [threading.Thread(target=done, args=([i], [verdicts[i]])) for i in range(len(pairs))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return verdicts

    judge.identity = "j"
    with open_store(url) as store:
        stored = StoredJudge(judge, store)
        assert [v.reason for v in stored(pairs)] == [answer for _, answer in pairs]
        assert stored.asked == store.count() == 40


def test_waiting_ends(url):
    pairs = [("label", "1"), ("label", "2")]
    with open_store(url) as ours, open_store(url) as theirs:
        theirs.claim_many("j", pairs[:1], 60)  # a process that lives and hangs

        def judge(pairs, datasets=None, done=None):
            return [Verdict(Category.GENERIC, "j")] * len(pairs)

        judge.identity = "j"
        verdicts = StoredJudge(judge, ours, patience=0.3)(pairs)
        assert verdicts[1].category is Category.GENERIC
        assert verdicts[0] == Verdict(
            None, "in flight", "another process has claimed the pair and given no verdict for 0.3 seconds"
        )
        assert ours.count() == 1


WRITER = """
import sys
from speciarl.core.scale import Category
from speciarl.judges.store import open_store
from speciarl.judges.verdict import Verdict
with open_store(sys.argv[1]) as store:
    for batch in range(10**9):
        pairs = [("label", f"{25 * batch + i}") for i in range(25)]
        store.put_many("judge", pairs, [Verdict(Category.GENERIC, "s")] * 25)
        print(batch, flush=True)
"""


def test_a_killed_sqlite_writer_leaves_whole_batches(tmp_path):
    path = tmp_path / "v.sqlite"
    process = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    done = [process.stdout.readline() for _ in range(20)]
    process.kill()
    process.communicate()
    with open_store(path) as store:
        assert done[-1] == "19\n" and store.count() >= 500 and store.count() % 25 == 0


@pytest.mark.parametrize("name", ["new.sqlite", "deep/new.sqlite"])
def test_a_new_file_may_be_made_by_many_at_once(tmp_path, name):
    log = tmp_path / "log"
    finish(start(str(tmp_path / name), log, 0, 50, count=6))
    check_sound(str(tmp_path / name), 50)
