"""What can go wrong in training: kill -9 at any moment, a judge that goes away, a full disk, a loss that is no
number; each ends in one line, and the same command goes on."""

import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from speciarl.core.files import weights_digest
from speciarl.core.scale import UserError
from speciarl.data.trees import load_trees
from speciarl.judges.tree import TreeJudge
from speciarl.judges.verdict import Verdict
from speciarl.policy.model import load_policy
from speciarl.training.recipe import load_recipe
from speciarl.training.settings import recipe_judge
from speciarl.training.trainer import SpecificityTrainer

training = importlib.import_module("speciarl.training.loop")
checkpoints = importlib.import_module("speciarl.training.checkpoints")
adapters = importlib.import_module("speciarl.training.reward")

WORKERS = Path(__file__).parent / "workers"
LIMIT = 300  # seconds for a launch; what waits for ever fails the tests instead
EIGHT = [
    "steps=8",
    "data.birds=8",
    "prompts_per_generation=4",
    "prompts_per_step=2",
    "rollouts=4",
    "micro_batch=8",
    "save_every=1",
]  # four generations of two steps
SIX = [*EIGHT, "steps=6"]
SELF = ["steps=2", "rounds=2", "data.birds=4", "prompts_per_step=2", "micro_batch=2", "rollouts=4", "save_every=1"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def outcome(run: Path) -> dict:
    "All that must be the same, however often a run was interrupted."
    files = {
        name: (run / name).read_text()
        for name in ("log.jsonl", "rollouts.jsonl", "recipe.json")
        if (run / name).exists()
    }
    return {"weights": weights_digest(run / "policy"), **files}


def environment() -> dict:
    return os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


# -- kill -9

# eight images, four at once, two steps each: an epoch has four steps, so a run resumed at step 4 begins its second
# epoch, at step 6 it is in the middle of it
MOMENTS = {
    "whole": [],
    "unmarked": [["before_the_mark", 4]],
    "judged": [["after_judging", 4]],
    "logged": [["after_logging", 7]],
    "twice": [["before_the_mark", 2], ["after_judging", 2]],
}
KILLED = {
    **{f"grpo {name}": dict(recipe="smoke/speciarl", changes=EIGHT, killed=killed) for name, killed in MOMENTS.items()},
    **{
        f"lora {name}": dict(
            recipe="smoke/speciarl", changes=[*EIGHT, "steps=6", "lora_rank=4", "export=adapter"], killed=MOMENTS[name]
        )
        for name in ("whole", "unmarked", "judged")
    },
    **{
        f"noise {name}": dict(recipe="smoke/dapo_ds", changes=[*EIGHT, "noise=0.5", "steps=6"], killed=MOMENTS[name])
        for name in ("whole", "unmarked")
    },
    **{
        f"sft {name}": dict(
            recipe="smoke/sft",
            changes=["steps=5", "data.birds=4", "prompts_per_step=2", "micro_batch=2", "save_every=1"],
            killed=killed,
        )
        for name, killed in {
            "whole": [],
            "second epoch": [["after_logging", 4]],
            "between epochs": [["before_the_mark", 3]],
        }.items()
    },
    "self whole": dict(recipe="smoke/self", changes=SELF, killed=[]),
    "self first round": dict(recipe="smoke/self", changes=SELF, killed=[["before_the_mark", 2]]),
    "self at the end": dict(
        recipe="smoke/self", changes=SELF, killed=[["while_saving", 0], ["after_logging", 1], ["while_saving", 0]]
    ),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    "The folder of all runs of `KILLED`, each killed at its moments and then left to end."
    folder = tmp_path_factory.mktemp("killed")
    (folder / "cases.json").write_text(json.dumps(KILLED))
    done = subprocess.run(
        [sys.executable, WORKERS / "resume_worker.py", folder],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=environment(),
    )
    assert done.returncode == 0 and all((folder / f"{name}.json").exists() for name in KILLED), done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("name", [name for name in KILLED if KILLED[name]["killed"]])
def test_a_killed_run_ends_like_an_uninterrupted_one(killed, name):
    attempts = json.loads((killed / f"{name}.json").read_text())
    assert [attempt["code"] for attempt in attempts] == [-9] * len(KILLED[name]["killed"]) + [0]
    assert [attempt["card"] for attempt in attempts] == [False] * len(KILLED[name]["killed"]) + [True]
    assert outcome(killed / name) == outcome(killed / f"{name.split()[0]} whole")


@pytest.mark.parametrize(
    "kind, parts",
    [
        ("grpo", {"rollouts.jsonl": 4 * 16, "log.jsonl": 8}),
        ("lora", {"rollouts.jsonl": 3 * 16, "log.jsonl": 6}),
        ("self", {"log.jsonl": 2}),
    ],
)
def test_what_is_compared_is_there(killed, kind, parts):
    assert {name: len(lines(killed / f"{kind} whole" / name)) for name in parts} == parts


def test_a_resumed_run_went_on_from_the_last_whole_checkpoint(killed):
    "Not from the half-written one, which is removed; and not from the beginning."
    begun = {name: json.loads((killed / f"grpo {name}" / "card.json").read_text())["resumed_from"] for name in MOMENTS}
    assert begun == {"whole": 0, "unmarked": 2, "judged": 4, "logged": 6, "twice": 2}
    first = json.loads((killed / "grpo unmarked.json").read_text())[0]
    assert first["held"] == {"checkpoint-2": True, "checkpoint-4": False}


def test_a_finished_run_keeps_no_checkpoints(killed):
    for name in KILLED:
        assert json.loads((killed / f"{name}.json").read_text())[-1]["held"] == {}
        assert not list((killed / name).glob("round-*"))


def test_a_round_of_self_training_is_not_done_twice(killed):
    "Killed with the first round done, the run went on from the second; the moment came again in the second round."
    attempts = json.loads((killed / "self at the end.json").read_text())
    assert len(attempts) == 4 and "checkpoint-2" in attempts[0]["held"]


# -- in this process: one run of reference


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return training.train(load_recipe("smoke/speciarl", SIX), tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def no_pause(monkeypatch):
    "The pauses before a judge is asked again, as they would have been."
    pauses = []
    monkeypatch.setattr(adapters.time, "sleep", pauses.append)
    return pauses


def dies_after(calls: int):
    "The judge of the recipe, which answers `calls` times and then no more."
    judge, asked = recipe_judge(load_recipe("smoke/speciarl", SIX)), []

    def failing(pairs, datasets=None):
        asked.append(1)
        if len(asked) > calls:
            raise UserError("the judge does not answer")
        return judge(pairs, datasets)

    return failing


def files(folder: Path) -> dict:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("calls, step", [(1, 2), (2, 4)])
def test_a_judge_that_dies_stops_the_run_and_the_same_command_goes_on(tmp_path, whole, no_pause, calls, step):
    "Nothing of the interrupted generation is left: the run ends as if the judge had never been away."
    recipe = load_recipe("smoke/speciarl", SIX)
    with pytest.raises(UserError) as error:
        training.train(recipe, tmp_path / "run", judge=dies_after(calls))
    assert (
        str(error.value)
        == f"stopped at step {step}, which is kept: the judge does not answer (asked 4 times, 20 s apart); the same "
        "command goes on from there"
    )
    assert no_pause == [20.0] * 3
    assert (
        not (tmp_path / "run" / "card.json").exists()
        and (tmp_path / "run" / "checkpoints" / f"checkpoint-{step}" / checkpoints.MARK).exists()
    )
    training.train(recipe, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "card.json").read_text())["resumed_from"] == step
    assert outcome(tmp_path / "run") == outcome(whole)


def test_a_judge_that_dies_at_the_first_step_leaves_nothing_to_go_on_with(tmp_path, whole, no_pause):
    recipe = load_recipe("smoke/speciarl", SIX)
    with pytest.raises(
        UserError,
        match=r"^stopped before the first step: the judge does not answer \(asked 4 times, 20 s apart\); the same "
        r"command begins again$",
    ):
        training.train(recipe, tmp_path / "run", judge=dies_after(0))
    assert not list((tmp_path / "run").rglob("checkpoint-*")) and outcome(
        training.train(recipe, tmp_path / "run")
    ) == outcome(whole)


def test_a_judge_that_comes_back_in_time_is_not_noticed(tmp_path, whole, no_pause):
    judge, asked = recipe_judge(load_recipe("smoke/speciarl", SIX)), []

    def flaky(pairs, datasets=None):
        asked.append(1)
        if len(asked) in (2, 3, 5):
            raise ConnectionError("refused")
        return judge(pairs, datasets)

    assert outcome(training.train(load_recipe("smoke/speciarl", SIX), tmp_path / "run", judge=flaky)) == outcome(whole)
    assert no_pause == [20.0] * 3


def test_a_judge_that_dies_while_validating_stops_with_the_step_kept(tmp_path, no_pause):
    recipe = load_recipe("smoke/speciarl", [*SIX, "steps=2", "validation_images=2"])
    with pytest.raises(
        UserError,
        match="^stopped at step 2, which is kept: the judge does not answer; the same command goes on from there$",
    ):
        training.train(recipe, tmp_path / "run", judge=dies_after(1))
    assert training.train(recipe, tmp_path / "run") and (tmp_path / "run" / "card.json").exists()


# -- refused at the start


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(training, "load_policy", lambda *args, **options: pytest.fail("the policy was loaded"))


@pytest.mark.parametrize("judge", ["llm", "cascade"])
def test_a_judge_that_is_down_is_noticed_before_the_policy_is_loaded(tmp_path, no_model, judge):
    recipe = load_recipe("smoke/speciarl", [*SIX, f"judge={judge}", "judge_model=judge"])
    with pytest.raises(UserError) as error:
        training.train(recipe, tmp_path / "run", judge_url="http://127.0.0.1:9/v1")
    assert "http://127.0.0.1:9/v1" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists(), "a run that was refused leaves nothing behind"


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            ["data.birds=1"],
            "smoke/speciarl: 1 images do not fill one generation of 4 prompts; lower prompts_per_generation or "
            "prompts_per_step",
        ),
        (
            ["micro_batch=3"],
            "smoke/speciarl: micro_batch 3 on 1 processes does not divide 8 answers per step; use 1, 2, 4, 8",
        ),
        (
            ["data.cub200=8"],
            "smoke/speciarl trains on cub200: give the folder that holds the data sets with --data-root",
        ),
    ],
)
def test_impossible_runs_are_refused_before_the_policy_is_loaded(tmp_path, no_model, changes, message):
    with pytest.raises(UserError) as error:
        training.train(load_recipe("smoke/speciarl", [*SIX, *changes]), tmp_path / "run")
    assert str(error.value) == message and not (tmp_path / "run").exists()


@pytest.mark.parametrize("strict", [True, False])
def test_labels_outside_the_tree_are_refused_before_the_policy_is_loaded(tmp_path, no_model, monkeypatch, strict):
    "No answer about them could be judged: the run would learn nothing from them, at full price."
    plain = training.training_samples
    monkeypatch.setattr(
        training,
        "training_samples",
        lambda *args: [
            replace(sample, label="hooded gull") if i in (2, 5) else sample for i, sample in enumerate(plain(*args))
        ],
    )
    recipe = load_recipe("smoke/speciarl", SIX)
    judge = TreeJudge(load_trees(["birds"]), strict=strict)
    with pytest.raises(
        UserError,
        match="^1 of [0-9] labels are in no label tree, so no answer could be judged: 'hooded gull'; correct the "
        "label or add it to the tree$",
    ):
        training.train(recipe, tmp_path / "run", judge=judge)
    assert not (tmp_path / "run").exists()


def test_answers_without_a_verdict_teach_nothing(tmp_path):
    "A judge that never knows: all groups are masked, the weights stay, and the log says so."

    def silent(pairs, datasets=None):
        return [Verdict(None, "down")] * len(pairs)

    run = training.train(
        load_recipe("smoke/speciarl", [*SIX, "steps=2", "weight_decay=0", "max_missing=1"]),
        tmp_path / "run",
        judge=silent,
    )
    row = lines(run / "log.jsonl")[0]
    assert row["groups_masked"] == 1 and row["share_missing"] + row["share_unformatted"] == 1 and row["loss"] == 0
    assert all(line["reward"] is None for line in lines(run / "rollouts.jsonl"))
    tuned, base = (load_policy(policy).model.state_dict() for policy in (run / "policy", "fieldguide-base"))
    assert all(torch.equal(tuned[name], base[name]) for name in base)


@pytest.mark.parametrize(
    "source, why", [("undecided", "'x' is in no tree"), ("unknown label", ""), ("llm failed", "x")]
)
def test_a_first_generation_without_a_verdict_stops_the_run(tmp_path, source, why):
    def silent(pairs, datasets=None):
        return [Verdict(None, source, why)] * len(pairs)

    with pytest.raises(UserError) as error:
        training.train(load_recipe("smoke/speciarl", SIX), tmp_path / "run", judge=silent)
    said = str(error.value)
    assert said.startswith("stopped before the first step: none of the ") and "\n" not in said
    assert f"answers of the first generation got a verdict (the first: {why or source})" in said
    assert not (tmp_path / "run" / "policy").exists() and not list((tmp_path / "run").rglob("checkpoint-*"))


def test_a_first_generation_without_an_answer_in_the_asked_form_stops_the_run(tmp_path):
    recipe = load_recipe("smoke/speciarl", [*SIX, "max_tokens=1"])  # no answer gets as far as its end
    with pytest.raises(UserError, match="^stopped before the first step: none of the [0-9]+ answers of the first gen"):
        training.train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "policy").exists()


# -- folders


def test_a_finished_run_is_left_alone(whole):
    before = files(whole)
    with pytest.raises(UserError) as error:
        training.train(load_recipe("smoke/speciarl", SIX), whole)
    assert str(error.value) == f"{whole} holds a finished run; choose another --out" and files(whole) == before


def interrupted(folder: Path, whole: Path, name: str = "unmarked") -> Path:
    "An unfinished run: the recipe, a log, a whole checkpoint."
    (folder / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    (folder / "checkpoints" / "checkpoint-2" / checkpoints.MARK).write_text('{"step": 2}')
    for file in ("recipe.json", "log.jsonl", "rollouts.jsonl"):
        shutil.copy(whole / file, folder)
    return folder


@pytest.mark.parametrize(
    "name, changes, message",
    [
        (
            "smoke/speciarl",
            ["seed=3"],
            "holds an unfinished run with seed: 0, not 3; choose another --out, or delete it",
        ),
        (
            "smoke/speciarl",
            ["data.birds=9"],
            "holds an unfinished run with data: {'birds': 8}, not {'birds': 9}; choose another --out, or delete it",
        ),
        (
            "smoke/rft",
            [],
            "holds an unfinished run with rule: dynamic, not reward3; choose another --out, or delete it",
        ),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused_with_nothing_touched(
    tmp_path, whole, no_model, name, changes, message
):
    folder = interrupted(tmp_path / "run", whole)
    before = files(folder)
    with pytest.raises(UserError) as error:
        training.train(load_recipe(name, [*SIX, *changes]), folder)
    assert str(error.value).split(str(folder))[1].strip() == message and files(folder) == before


def test_half_written_checkpoints_are_removed_and_the_latest_whole_one_is_found(tmp_path):
    for step, marked in ((2, True), (10, True), (12, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if marked:
            (tmp_path / f"checkpoint-{step}" / checkpoints.MARK).write_text("{}")
    assert checkpoints.last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]
    assert checkpoints.last_checkpoint(tmp_path / "nothing") is None


# -- a full disk


@pytest.fixture
def small_files():
    "No file can grow beyond 200 kB, as on a disk that is full: the policy has 5 MB, its optimiser 10."
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int = 200_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [200_000, 5_290_000], ids=["safetensors", "torch"])
def test_a_full_disk_stops_with_one_line_and_the_same_command_goes_on(tmp_path, whole, small_files, monkeypatch, size):
    """The limit is on real files: safetensors (200 kB) and torch (5.29 MB: the weights fit, the optimiser does not)
    say it each in their own way."""
    plain = checkpoints.Watch.on_log

    def filling(self, args, state, *others, **more):
        plain(self, args, state, *others, **more)
        if state.global_step == 4:
            small_files(size)

    monkeypatch.setattr(checkpoints.Watch, "on_log", filling)
    recipe = load_recipe("smoke/speciarl", SIX)
    with pytest.raises(UserError) as error:
        training.train(recipe, tmp_path / "run")
    small_files(resource.RLIM_INFINITY)
    said = str(error.value)
    assert (
        said.startswith(f"cannot save to {tmp_path / 'run'}: ")
        and said.endswith("; make room, and the same command goes on from the last checkpoint")
        and "\n" not in said
    )
    monkeypatch.undo()
    training.train(recipe, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "card.json").read_text())["resumed_from"] == 2 and outcome(
        tmp_path / "run"
    ) == outcome(whole)


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "[enforce fail"),
    ],
)
def test_a_full_disk_at_the_very_end(tmp_path, monkeypatch, error, words):
    def full(*args):
        raise error

    recipe = load_recipe("smoke/sft", ["steps=1", "data.birds=2", "prompts_per_step=2", "micro_batch=2"])
    monkeypatch.setattr(training, "save_policy", full)
    with pytest.raises(UserError) as told:
        training.train(recipe, tmp_path / "run")
    assert str(told.value).startswith(f"cannot save to {tmp_path / 'run'}: {words}")
    monkeypatch.undo()
    assert json.loads((training.train(recipe, tmp_path / "run") / "card.json").read_text())["resumed_from"] == 1, (
        "nothing is trained again"
    )


def test_faults_of_our_own_are_not_called_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="^shapes do not match$"), checkpoints.told_in_one_line(tmp_path):
        raise RuntimeError("shapes do not match")


# -- a loss that is no number


def test_a_loss_that_is_no_number_stops_and_the_checkpoint_before_it_is_kept(tmp_path, whole, monkeypatch):
    plain = SpecificityTrainer.compute_loss
    recipe = load_recipe("smoke/speciarl", SIX)

    def broken(self, *args, **options):
        loss = plain(self, *args, **options)
        return loss * float("nan") if self.state.global_step >= 3 else loss

    monkeypatch.setattr(SpecificityTrainer, "compute_loss", broken)
    with pytest.raises(UserError) as error:
        training.train(recipe, tmp_path / "run")
    assert (
        str(error.value) == "the loss is not a number at step 4: lower learning_rate; the checkpoint before it is kept"
    )
    held = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("checkpoint-*"))
    assert held == ["checkpoint-2"] and not (tmp_path / "run" / "card.json").exists()
    monkeypatch.undo()
    training.train(recipe, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole), "the checkpoint that was kept is a good one"


@pytest.mark.parametrize("name", ["smoke/sft", "smoke/speciarl"])
def test_a_step_far_too_large_ends_in_one_line(tmp_path, name):
    "Fine-tuning notices it in the loss; a policy that samples, in its answers."
    sizes = SIX if name == "smoke/speciarl" else ["steps=6", "data.birds=8", "prompts_per_step=2", "micro_batch=2"]
    with pytest.raises(UserError) as error:
        training.train(load_recipe(name, [*sizes, "learning_rate=1.0e+30"]), tmp_path / "run")
    assert "lower learning_rate" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run" / "card.json").exists()


def test_a_gradient_that_is_no_number_stops_before_it_is_saved(tmp_path):
    "The loss may be finite when the gradient is not; the weights are then lost with the next step."
    watch = checkpoints.Watch(tmp_path, print)
    state = type("State", (), dict(global_step=7, is_world_process_zero=True, log_history=[], max_steps=10))
    for logs, what in (({"loss": 1.0, "grad_norm": float("nan")}, "gradient"), ({"loss": float("inf")}, "loss")):
        with pytest.raises(
            UserError,
            match=f"^the {what} is not a number at step 7: lower learning_rate; the checkpoint before it is kept$",
        ):
            watch.on_log(None, state, None, logs)


# -- on several processes


def torchrun(out: Path, failing: int, *recipe: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(WORKERS / "train_worker.py"),
        str(out),
        str(failing),
        *recipe,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment())


def test_two_processes_stop_together_and_go_on_together(tmp_path):
    "The judge fails in the second process only; both stop with its line, and the same command ends the run."
    out, recipe = tmp_path / "run", ("smoke/speciarl", *SIX, "steps=4", "micro_batch=4")
    stopped = torchrun(out, 1, *recipe)
    assert stopped.returncode != 0 and not (out / "card.json").exists(), stopped.stderr[-3000:]
    said = [json.loads(Path(f"{out}.{rank}.json").read_text()) for rank in (0, 1)]
    assert (
        said
        == [
            "stopped at step 2, which is kept: process 1 of 2: the judge does not answer: start it (asked 4 times, "
            "20 s apart); the same command goes on from there"
        ]
        * 2
    )
    assert {path.name: (path / checkpoints.MARK).exists() for path in (out / "checkpoints").glob("checkpoint-*")} == {
        "checkpoint-2": True
    }
    done = torchrun(out, -1, *recipe)
    assert done.returncode == 0, done.stderr[-3000:]
    card = json.loads((out / "card.json").read_text())
    assert (card["processes"], card["resumed_from"]) == (2, 2) and card["sha256"] == weights_digest(out / "policy")
    assert [row["step"] for row in lines(out / "log.jsonl")] == [1, 2, 3, 4]
    rows = lines(out / "rollouts.jsonl") + lines(out / "rollouts.1.jsonl")
    assert len(rows) == 2 * 16 and {row["uid"] for row in rows if row["step"] == 0}.isdisjoint(
        {row["uid"] for row in rows if row["step"] == 2}
    ), "two generations of four images each"


def test_two_processes_teach_themselves(tmp_path):
    done = torchrun(tmp_path / "run", -1, "smoke/self", *SELF, "micro_batch=1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "run" / "card.json").read_text())["processes"] == 2 and load_policy(
        tmp_path / "run" / "policy"
    )
