"A TAPO run that is killed ends like one that was not, and two processes share one; real processes, on the CPU."

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from speciarl.core.files import weights_digest
from speciarl.fine_r1.tapo import TAPO
from speciarl.training.loop import train
from speciarl.training.recipe import load_recipe

WORKER = Path(__file__).parent / "workers" / "tapo_worker.py"
SMALL = [
    "data.birds=120",
    "prompts_per_generation=4",
    "prompts_per_step=2",
    "rollouts=4",
    "micro_batch=4",
    "save_every=1",
    "steps=4",
]  # two generations of two updates


def launch(command: list, *arguments) -> subprocess.CompletedProcess:
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run(
        [sys.executable, *command, str(WORKER), *map(str, arguments), "smoke/tapo", *SMALL],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
    )


def outcome(run: Path) -> dict:
    return {
        "weights": weights_digest(run / "policy"),
        **{name: (run / name).read_text() for name in ("log.jsonl", "rollouts.jsonl", "triplets.json", "recipe.json")},
    }


def test_a_killed_run_ends_like_an_uninterrupted_one(tmp_path):
    "Killed with SIGKILL while the second generation's checkpoint is written, it goes on from the first."
    torch.set_num_threads(1)
    whole = train(load_recipe("smoke/tapo", SMALL), tmp_path / "whole", way=TAPO)
    killed = launch([], tmp_path / "killed", 4)
    assert killed.returncode == -9 and not (tmp_path / "killed" / "card.json").exists(), killed.stderr[-3000:]
    resumed = train(load_recipe("smoke/tapo", SMALL), tmp_path / "killed", way=TAPO)
    assert json.loads((resumed / "card.json").read_text())["resumed_from"] == 2 and outcome(resumed) == outcome(whole)


def test_two_processes_share_a_run(tmp_path):
    "Each samples whole groups of its own; the triplets are found once."
    out = tmp_path / "run"
    done = launch(["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"], out, 0)
    assert done.returncode == 0, done.stderr[-3000:]
    card, log = (
        json.loads((out / "card.json").read_text()),
        [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()],
    )
    assert (
        card["processes"] == 2
        and card["sha256"] == weights_digest(out / "policy")
        and [row["step"] for row in log] == [1, 2, 3, 4]
    )
    assert all(row["anchor_divergence"] >= 0 for row in log) and {"groups_outside_band", "share_in_form"} <= set(log[0])
    rows = [
        [json.loads(line) for line in (out / name).read_text().splitlines()]
        for name in ("rollouts.jsonl", "rollouts.1.jsonl")
    ]
    uids = [{row["uid"] for row in part} for part in rows]
    assert (
        [len(part) for part in rows] == [16, 16]
        and uids[0].isdisjoint(uids[1])
        and uids[0] | uids[1] <= set(json.loads((out / "triplets.json").read_text()))
    )
