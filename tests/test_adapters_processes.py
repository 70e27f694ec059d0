"""Groups that are spread over real processes, two and four of them (torchrun, gloo, CPU).

What all processes together are paid must be what one process would have been paid. The cases of a number of processes
share one launch.
"""

import json
import os
import random
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

sys.path.insert(0, str(Path(__file__).parent / "workers"))
WORKER = Path(__file__).parent / "workers" / "gather_worker.py"
LIMIT = 180  # seconds for a launch; a process that waits for ever fails the tests instead

UIDS = [f"u{i}" for i in range(24)]


def blocks(n: int, count: int) -> list[str]:
    return [uid for uid in UIDS[:count] for _ in range(n)]


def drawn(draw: int, n: int, groups: int, **settings) -> dict:
    return dict(
        answers="".join(random.Random(draw).choices("xxagglsm?-", k=n * groups)),
        uids=blocks(n, groups),
        n=n,
        step=draw,
        settings=settings,
    )


CASES = {
    # 12 completions: slices of 6 (two processes) or 3 (four); the second group of four, or a single group of twelve,
    # lies across them
    "straddling": dict(answers="ggxxgxsgxxxa", uids=blocks(4, 3), n=4),
    "larger than a process": dict(answers="ggxxgxggxxxs", uids=["u0"] * 12, n=12),
    "the same sample twice": dict(answers="ggxxgxsglxxx", uids=["u0"] * 12, n=4),
    "missing": dict(answers="s?xxg??-?xxs", uids=blocks(4, 3), n=4),
    "mixed": dict(answers="ggxxgxsgxxxa", uids=["u0"] * 4 + ["u1"] * 3 + ["u2"] * 5, n=4),
    "no key in one process": dict(answers="ggxxgxsgxxxa", uids=blocks(4, 3), n=4, without_uid=[1]),
    "too many missing": dict(answers="????????gggg", uids=blocks(4, 3), n=4, settings={"max_missing": 0.5}),
    "logged": dict(answers="ggxxgxsgxxxa", uids=blocks(4, 3), n=4),
    **{f"drawn {seed}": drawn(seed, 6, 10) for seed in range(4)},
    "second best": drawn(4, 6, 10, anchor_rank=2),
    "single": drawn(5, 6, 10, rule="dynamic-single"),
    "noise": drawn(6, 6, 10, noise=0.5, seed=3),
    "static": drawn(7, 6, 10, rule="scala2"),
}
PAID = [name for name in CASES if name not in ("mixed", "no key in one process", "too many missing")]


@lru_cache
def launched(world: int, ending: str) -> tuple[list[dict], list[list[dict]], subprocess.CompletedProcess]:
    "What every process of a launch recorded, the rollouts that each wrote, and how the launch ended."
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "cases.json").write_text(json.dumps(CASES))
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            str(world),
            str(WORKER),
            name,
            ending,
        ]
        environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment)
        assert (folder / "0.json").exists(), done.stderr[-2000:]
        recorded = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]
        files = [folder / "rollouts.jsonl", *(folder / f"rollouts.{rank}.jsonl" for rank in range(1, world))]
        return recorded, [[json.loads(line) for line in file.read_text().splitlines()] for file in files], done


LAUNCHES = pytest.mark.parametrize("world, ending", [(2, "killed"), (4, "error")], ids=["2", "4"])


def alone(name: str) -> dict:
    "The case in one process."
    from gather_worker import run

    return run(CASES[name], 1, 0)


@pytest.mark.parametrize("name", PAID)
@LAUNCHES
def test_together_they_are_paid_like_one_process(world, ending, name):
    results, expected = [result[name] for result in launched(world, ending)[0]], alone(name)
    for what in ("paid", "mask", "flat"):
        assert [value for result in results for value in result[what]] == expected[what]


@LAUNCHES
def test_a_part_of_a_group_has_another_best(world, ending):
    "The case is one where every process anchoring on what it sees would be wrong, so the tests above mean something."
    from gather_worker import run

    case = CASES["larger than a process"]
    size = 12 // world
    apart = [
        run({**case, "answers": case["answers"][i : i + size], "uids": case["uids"][:size], "n": size}, 1, 0)["paid"]
        for i in range(0, 12, size)
    ]
    whole = [result["larger than a process"]["paid"] for result in launched(world, ending)[0]]
    assert sum(whole, []) == [0.0] * 11 + [1.0]
    assert sum(apart, [])[:2] == [1.0, 1.0], (
        "without the exact answer of the last process, backing off is the best there is"
    )


@LAUNCHES
def test_all_processes_log_the_same(world, ending):
    for name in PAID:
        results = [result[name]["metrics"] for result in launched(world, ending)[0]]
        assert all(result == results[0] for result in results)
        expected = {key: value for key, value in alone(name)["metrics"].items() if key != "judge_seconds"}
        assert {key: value for key, value in results[0].items() if key != "judge_seconds"} == expected


@pytest.mark.parametrize(
    "name, message",
    [
        ("mixed", "completions 4 to 7 belong to 2 samples: is num_generations=4 the trainer's?"),
        (
            "no key in one process",
            "process 1 of {world}: the batch has no column 'uid': the training set needs label (the exact name) and "
            "uid (one value per sample)",
        ),
        ("too many missing", "8 of 12 answers got no verdict (the first: test): look at the judge"),
        ("judge down", "process 1 of {world}: the judge does not answer: start it"),
        ("bug", "process {last} of {world}: KeyError: 'label'"),
    ],
)
@LAUNCHES
def test_a_fault_in_one_process_stops_all_with_the_same_line(world, ending, name, message):
    assert [result[name] for result in launched(world, ending)[0]] == [
        {"error": message.format(world=world, last=world - 1)}
    ] * world


@LAUNCHES
def test_the_exchange_is_in_step_after_a_fault(world, ending):
    assert [result["after"]["paid"] for result in launched(world, ending)[0]] == [
        result["straddling"]["paid"] for result in launched(world, ending)[0]
    ]


@LAUNCHES
def test_every_process_writes_its_own_rollouts(world, ending):
    rows = launched(world, ending)[1]
    assert [len(mine) for mine in rows] == [12 // world] * world
    assert [row["answer"] for mine in rows for row in mine] == list(CASES["logged"]["answers"]) and [
        row["reward"] for mine in rows for row in mine
    ] == alone("logged")["paid"]


def test_a_run_whose_judge_is_gone_ends_with_one_line_in_every_process():
    done = launched(4, "error")[2]
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines and set(lines) == {"error: process 0 of 4: the judge went away"}


def test_a_run_one_of_whose_processes_is_killed_ends():
    assert launched(2, "killed")[2].returncode != 0, "the other one does not wait for ever"
