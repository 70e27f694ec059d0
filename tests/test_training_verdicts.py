"Training keeps and finds a language model's verdicts: no pair is paid for twice, by its ranks or in the next run."

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from judge_server import judge_server, judge_server_process  # noqa: F401 - fixtures

from speciarl.core.files import weights_digest
from speciarl.core.scale import UserError
from speciarl.fine_r1.methods import train
from speciarl.judges.choose import StoredJudge
from speciarl.judges.store import open_store
from speciarl.training.loop import store_beside
from speciarl.training.recipe import load_recipe
from speciarl.training.settings import recipe_judge

SMALL = [
    "steps=2",
    "siblings=2",
    "data.birds=8",
    "prompts_per_generation=4",
    "prompts_per_step=4",
    "rollouts=4",
    "micro_batch=8",
    "judge=llm",
    "judge_model=judge",
]


def outcome(run: Path) -> tuple[str, str, str]:
    return weights_digest(run / "policy"), (run / "log.jsonl").read_text(), (run / "rollouts.jsonl").read_text()


def pairs_in(*files: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [(row["label"], row["answer"]) for row in rows if row["answer"]]


def test_a_run_pays_once_for_a_pair_and_the_next_run_for_none(tmp_path, judge_server):
    recipe = load_recipe("smoke/speciarl", [*SMALL, f"judge_url={judge_server.url}"])
    train(recipe, tmp_path / "bare", judge=recipe_judge(recipe))  # a judge of one's own is taken as it is
    assert not (tmp_path / "bare.sqlite").exists()
    judge_server.set()
    train(recipe, tmp_path / "first")
    asked, pairs = judge_server.stats()["pairs"], pairs_in(tmp_path / "first" / "rollouts.jsonl")
    assert set(asked.values()) == {1} and len(asked) == len(set(pairs)) < len(pairs)
    judge_server.set()
    train(recipe, tmp_path / "second", store=tmp_path / "first.sqlite")
    assert judge_server.stats()["pairs"] == {}
    assert outcome(tmp_path / "bare") == outcome(tmp_path / "first") == outcome(tmp_path / "second")
    assert not (tmp_path / "second.sqlite").exists()
    cards = [json.loads((tmp_path / name / "card.json").read_text())["judge"] for name in ("bare", "first", "second")]
    with open_store(tmp_path / "first.sqlite") as store:
        assert cards == [StoredJudge(None, store).identity] * 3 and store.count() == len(asked)


def test_evaluation_finds_what_training_paid_for(tmp_path, judge_server):
    recipe = load_recipe("smoke/speciarl", [*SMALL, "steps=1", "data.birds=4", f"judge_url={judge_server.url}"])
    train(recipe, tmp_path / "run")
    judge_server.set()
    pairs = list(dict.fromkeys(pairs_in(tmp_path / "run" / "rollouts.jsonl")))
    with open(tmp_path / "pairs.csv", "w") as file:
        file.write("label,answer\n" + "".join(f"{label},{answer}\n" for label, answer in pairs))
    command = ["judge", "pairs.csv", "--judge", "llm", "--base-url", judge_server.url, "--model", "judge"]
    command += ["--prompt", recipe.judge_prompt, "--store", "run.sqlite", "--out", "verdicts.csv"]
    subprocess.run([sys.executable, "-m", "speciarl.cli", *command], cwd=tmp_path, check=True, capture_output=True)
    assert judge_server.stats()["pairs"] == {}


@pytest.mark.slow
def test_the_ranks_of_a_run_pay_once_for_a_pair(tmp_path, judge_server):
    judge_server.set(delay=0.2)  # what one rank asks about is not answered before the others ask
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    sizes = ["data.birds=16", "prompts_per_generation=8", "prompts_per_step=8"]  # of few classes: both ranks see each
    changes = [text for change in [*SMALL, *sizes] for text in ("--set", change)]
    command = ["-m", "speciarl.cli", "train", "smoke/speciarl", "--judge-url", judge_server.url, "--out", "run"]
    quiet = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([*launch, *command, *changes], cwd=tmp_path, env=quiet, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = [set(pairs_in(tmp_path / "run" / name)) for name in ("rollouts.jsonl", "rollouts.1.jsonl")]
    asked = judge_server.stats()["pairs"]
    assert ranks[0] & ranks[1] and set(asked.values()) == {1} and len(asked) == len(ranks[0] | ranks[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.sqlite"]


def test_a_refused_run_leaves_no_store(tmp_path, judge_server):
    recipe = load_recipe("smoke/speciarl", [*SMALL, f"judge_url={judge_server.url}", "policy=no/such/policy"])
    with pytest.raises((UserError, OSError)):
        train(recipe, tmp_path / "run")
    recipe = load_recipe("smoke/speciarl", SMALL)
    with pytest.raises(UserError, match="needs its server and its name: judge_model and judge_url in the recipe, or"):
        train(recipe, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_several_machines_have_stores_of_their_own(monkeypatch):
    assert store_beside("runs/a.b") == Path("runs/a.b.sqlite") and store_beside("runs/a", "x.sqlite") == "x.sqlite"
    for name, value in (("WORLD_SIZE", "16"), ("LOCAL_WORLD_SIZE", "8"), ("GROUP_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert store_beside("runs/a") == Path("runs/a.1.sqlite")
    assert store_beside("runs/a", "redis://h:1/0") == "redis://h:1/0"
    with pytest.raises(UserError, match="x.sqlite is a file, and 2 machines cannot share one as a verdict store; give"):
        store_beside("runs/a", "x.sqlite")
