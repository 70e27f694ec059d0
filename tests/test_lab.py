"""Artefacts and the laboratory: computed once, whoever asks, and again when they are damaged."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from refusal import message

from speciarl.lab import COMPUTE, GROUPS, METHODS, Job, Lab, Store
from speciarl.scale import UserError

# Artefacts


def count(folder: Path) -> None:
    with open(folder.parents[1] / "computed.txt", "a") as file:
        file.write(f"{folder.name}\n")
    time.sleep(0.5)
    (folder / "value.txt").write_text("42")


def ask(folder: Path) -> None:
    Store(folder / "artefacts").make("slow", {"n": 1}, count)


def test_two_processes_compute_once(tmp_path):
    processes = [multiprocessing.get_context("spawn").Process(target=ask, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len((tmp_path / "computed.txt").read_text().splitlines()) == 1
    assert Store(tmp_path / "artefacts").ready("slow", {"n": 1})


@pytest.mark.parametrize("damage", [lambda path: path.write_text("43"), lambda path: path.unlink(), lambda path: (path.parent / "record.json").write_text("{")])
def test_a_damaged_artefact_is_made_again(tmp_path, damage):
    ask(tmp_path)
    store = Store(tmp_path / "artefacts")
    damage(store.path("slow", {"n": 1}) / "value.txt")
    assert not store.ready("slow", {"n": 1})
    ask(tmp_path)
    assert store.ready("slow", {"n": 1}) and (store.path("slow", {"n": 1}) / "value.txt").read_text() == "42"


def test_a_failed_computation_leaves_nothing(tmp_path):
    def broken(folder):
        (folder / "half.txt").write_text("4")
        raise ValueError("no")

    store = Store(tmp_path)
    with pytest.raises(ValueError):
        store.make("slow", {}, broken)
    assert not store.ready("slow", {}) and not store.path("slow", {}).exists()


# The laboratory, with pretended computations (workers import this module)


def pretend(lab, job, folder):
    needs = [(lab.make(need) / "made.txt").read_text() for need in job.needs()]
    (folder / "made.txt").write_text(f"{job} from {needs}")


def refuse(lab, job, folder):
    raise UserError("the trees have no such domain")


def crash(lab, job, folder):
    os._exit(9)


def linger(lab, job, folder):
    (lab.root / "worker.pid").write_text(str(os.getpid()))
    time.sleep(60)


def laboratory(root, workers=2, **compute):
    return Lab("smoke", root, workers=workers, compute={**dict.fromkeys(COMPUTE, pretend), **compute})


def made(lab):
    return {path.parent.name: path.read_text() for path in lab.store.folder.glob("*/made.txt")}


def test_workers_and_order_do_not_matter(tmp_path, capsys):
    domains = [domain for group in GROUPS.values() for domain in group]
    first, second = laboratory(tmp_path / "first"), laboratory(tmp_path / "second", workers=0)
    jobs = first.jobs(METHODS, domains)
    assert first.ensure(jobs) == second.ensure(jobs[::-1]) == 2 * 6 * 3 + 6 + 2 * 6 * 6  # predictions and verdicts of the base, policies, theirs
    assert made(first) == made(second) and len(made(first)) == 2 * 6 * 3 + 6 + 2 * 6 * 6
    assert first.ensure(jobs) == 0
    assert "24 of 24 done" in capsys.readouterr().out


def test_methods_share_what_is_the_same(tmp_path):
    lab = laboratory(tmp_path)
    assert lab.job("zero-shot", 0, "cars") == Job("verdicts", "base", 0, "cars", "general", 1)
    assert lab.job("best of N", 0, "cars").n == lab.profile.best_of and lab.images(lab.job("best of N", 0, "cars")) == lab.profile.best_of_images
    assert lab.seeds("zero-shot") == [lab.profile.seeds[0]] and lab.seeds("SpeciaRL") == lab.profile.seeds


def test_keys_follow_what_an_artefact_depends_on(tmp_path, monkeypatch):
    def names(lab):
        trained = lab.job("SpeciaRL", 0, "cars")
        chain = [lab.job("SpeciaRL", 0), trained._replace(kind="predictions"), trained]
        return [lab.store.path(job.kind, lab.key(job)).name for job in chain]

    before = names(laboratory(tmp_path))
    judged = laboratory(tmp_path)
    judged._fixed["verdicts"] = {"code": "another judge"}
    assert [a == b for a, b in zip(before, names(judged))] == [True, True, False]
    trained = laboratory(tmp_path)
    trained._fixed["policy"] = {"code": "another trainer"}
    assert [a == b for a, b in zip(before, names(trained))] == [False, False, False]
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    assert [a == b for a, b in zip(before, names(laboratory(tmp_path)))] == [False, False, False]


def test_errors_of_workers(tmp_path):
    wanted = laboratory(tmp_path).jobs(["zero-shot"], ["cars", "food"])
    assert message(laboratory(tmp_path, verdicts=refuse).ensure, wanted) == "the trees have no such domain"
    assert message(laboratory(tmp_path, verdicts=crash).ensure, wanted) == (
        f"a worker process died (out of memory?), see {tmp_path}/.speciarl/workers.log; start again: what is finished is kept, and fewer workers need less memory")
    assert laboratory(tmp_path).ensure(wanted) == 2, "the predictions were kept"


def test_unknown_names(tmp_path):
    assert message(Lab, "huge", tmp_path) == "unknown profile 'huge'; there are: laptop, paper, smoke"
    assert message(laboratory(tmp_path).seeds, "magic") == f"unknown method 'magic'; there are: {', '.join(METHODS)}"


def run_lingering(root):
    laboratory(Path(root), predictions=linger).ensure([Job("predictions", "base", 0, "cars", "general", 1)])


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_workers_end_with_a_killed_parent(tmp_path):
    parent = multiprocessing.get_context("spawn").Process(target=run_lingering, args=(tmp_path,))
    parent.start()
    pid = tmp_path / "worker.pid"
    wait_for(lambda: pid.exists() and pid.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    wait_for(lambda: not alive(int(pid.read_text())))
    assert laboratory(tmp_path).ensure([Job("predictions", "base", 0, "cars", "general", 1)]) == 1, "the lock is free again"
