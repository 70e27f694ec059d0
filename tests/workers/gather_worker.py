"""One process of test_adapters_processes.py, started by torchrun: gather_worker.py FOLDER ENDING.

Runs every case on its slice of the batch, writes what came out to FOLDER/<rank>.json, and then ends badly: `error` (a
judge that raises in process 0) or `killed` (process 1 dies while the others wait for it).
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch.distributed as dist

from speciarl.core.scale import Category, UserError
from speciarl.judges.verdict import Verdict
from speciarl.training.reward import SpecificityReward

LEVELS = dict(zip("xaglsm", Category)) | {"?": None}


def judge(pairs, datasets=None):
    return [Verdict(LEVELS[answer], "test") for _, answer in pairs]


def slices(answers: str, uids: list, world: int, rank: int) -> tuple[list[str], list]:
    "The part of a batch that one process gets; - stands for a broken format."
    size = len(answers) // world
    mine = slice(rank * size, (rank + 1) * size)
    return ["no tag" if a == "-" else f"<answer>{a}</answer>" for a in answers[mine]], uids[mine]


def run(case: dict, world: int, rank: int, log: Path | None = None, judge=judge) -> dict:
    "Rewards, masks and metrics of one case in this process, or the line it stops with."
    texts, uids = slices(case["answers"], case["uids"], world, rank)
    reward = SpecificityReward(
        judge, num_generations=case["n"], retries=0, log_rollouts=log, **case.get("settings", {})
    )
    metrics = {}
    columns = {} if rank in case.get("without_uid", []) else {"uid": uids}
    try:
        paid = reward(
            texts,
            label=["y"] * len(texts),
            trainer_state=SimpleNamespace(global_step=case.get("step", 0)),
            log_metric=metrics.__setitem__,
            **columns,
        )
    except UserError as error:
        return {"error": str(error)}
    return {"paid": paid, "mask": reward.last_mask, "flat": reward.last_flat, "metrics": metrics}


def failing_at(bad: int, rank: int, error: Exception):
    "A judge that raises in process `bad` only."

    def attempt(pairs, datasets=None):
        if rank == bad:
            raise error
        return judge(pairs)

    return attempt


def main(folder: Path, ending: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    world, rank = dist.get_world_size(), dist.get_rank()
    cases = json.loads((folder / "cases.json").read_text())
    results = {
        name: run(case, world, rank, folder / "rollouts.jsonl" if name == "logged" else None)
        for name, case in cases.items()
    }
    results["judge down"] = run(
        cases["straddling"], world, rank, judge=failing_at(1, rank, UserError("the judge does not answer: start it"))
    )
    results["bug"] = run(cases["straddling"], world, rank, judge=failing_at(world - 1, rank, KeyError("label")))
    results["after"] = run(cases["straddling"], world, rank)
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.barrier()
    if ending == "killed" and rank == 1:
        os._exit(9)
    final = run(cases["straddling"], world, rank, judge=failing_at(0, rank, UserError("the judge went away")))
    sys.stderr.write(f"error: {final['error']}\n")  # in one piece, since all processes share the stream
    sys.exit(2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
