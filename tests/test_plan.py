"""The plan of a run: the numbers of the published recipe, every check with its sentence, and the two commands that
print it."""

import importlib
import json
import re
import shutil

import pytest
import torch
from judge_server import judge_server, judge_server_process  # noqa: F401 - fixtures
from packaging.version import Version
from safetensors.torch import save_file
from typer.testing import CliRunner

from speciarl.cli.app import app
from speciarl.core.config import available
from speciarl.core.scale import UserError
from speciarl.policy.model import PACKAGED, base_card
from speciarl.training.plan import (
    KNOWN,
    Check,
    checks,
    data_checks,
    hours,
    judge_checks,
    lora_parameters,
    memory,
    model_size,
    plan,
    services,
    size_checks,
    version_checks,
)
from speciarl.training.recipe import Batch, batch_sizes, load_recipe, save_interval
from speciarl.training.settings import grpo_config, sft_config

MAIN = "paper/speciarl"
SEVEN = KNOWN["Qwen/Qwen2.5-VL-7B-Instruct"]
NOWHERE = "http://127.0.0.1:9/v1"  # the discard port: nothing listens


@pytest.fixture
def module():
    return importlib.import_module("speciarl.training.plan")


# -- sizes


@pytest.mark.parametrize(
    "world, batch",
    [(1, Batch(1, 32, 80, 40)), (2, Batch(2, 32, 40, 20)), (4, Batch(4, 32, 20, 10)), (8, Batch(8, 32, 10, 5))],
)
def test_the_published_batch_on_any_number_of_gpus(world, batch, tmp_path):
    "128 prompts of 10 rollouts a step, two steps a generation; TRL takes the same numbers as its own."
    recipe = load_recipe(MAIN, ["engine=transformers", "dtype=float32"])
    assert batch_sizes(recipe, world) == batch
    assert (
        batch.world * batch.micro * batch.accumulation == 128 * 10
        and batch.steps_per_generation == 2 * batch.accumulation
    )
    config = grpo_config(recipe, tmp_path, world)
    assert (
        config.per_device_train_batch_size,
        config.gradient_accumulation_steps,
        config.steps_per_generation,
        config.num_generations,
        config.max_steps,
    ) == (32, batch.accumulation, batch.steps_per_generation, 10, 330)
    assert config.save_steps == save_interval(recipe) == 22, "eleven generations of two steps: an epoch"


@pytest.mark.parametrize("name", [name for name in available("recipes") if name.startswith("paper/")])
@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_every_paper_recipe_can_be_cut_for_a_node(name, world):
    "On 8 GPUs 5 or 15 rollouts a prompt need another micro-batch than the released one, which was for 4."
    recipe = load_recipe(name, ["micro_batch=16"] if world == 8 else [])
    batch, each = batch_sizes(recipe, world), recipe.rollouts if recipe.samples else 1
    assert (
        batch.world * batch.micro * batch.accumulation == recipe.prompts_per_step * each
        and recipe.generation % world == 0
    )


@pytest.mark.parametrize(
    "changes, world, message",
    [
        (
            [],
            3,
            "smoke/speciarl: 8 prompts per generation do not divide among 3 processes; use a number of processes "
            "that divides 8",
        ),
        (
            [],
            16,
            "smoke/speciarl: 8 prompts per generation do not divide among 16 processes; use a number of processes "
            "that divides 8",
        ),
        (
            ["micro_batch=7"],
            1,
            "smoke/speciarl: micro_batch 7 on 1 processes does not divide 80 answers per step; use 16, 20, 40, 80",
        ),
        (
            ["micro_batch=30"],
            2,
            "smoke/speciarl: micro_batch 30 on 2 processes does not divide 80 answers per step; use 8, 10, 20, 40",
        ),
        (
            ["data.birds=7"],
            1,
            "smoke/speciarl: 7 images do not fill one generation of 8 prompts; lower prompts_per_generation or "
            "prompts_per_step",
        ),
        (
            ["prompts_per_generation=512"],
            1,
            "smoke/speciarl: 400 images do not fill one generation of 512 prompts; lower prompts_per_generation or "
            "prompts_per_step",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused_with_what_can(changes, world, message):
    recipe = load_recipe("smoke/speciarl", changes)
    with pytest.raises(UserError) as error:
        batch_sizes(recipe, world)
    assert str(error.value) == message
    assert size_checks(recipe, world) == [Check(False, message)]
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        plan(recipe, world)


def test_a_micro_batch_larger_than_the_share_of_a_process_is_the_share():
    assert batch_sizes(load_recipe("smoke/speciarl", ["micro_batch=80"]), 4) == Batch(4, 20, 1, 1)
    assert batch_sizes(load_recipe("smoke/speciarl", ["micro_batch=null"]), 2) == Batch(2, 40, 1, 1)


def test_fine_tuning_counts_prompts(tmp_path):
    assert batch_sizes(load_recipe("smoke/sft"), 2) == Batch(2, 16, 1, 1)
    assert sft_config(load_recipe("smoke/sft", ["micro_batch=8"]), tmp_path).gradient_accumulation_steps == 4


# -- the policy, memory, time


def test_the_size_of_a_policy_is_read_from_its_folder_and_known_for_the_usual_ones(tmp_path):
    small = model_size("fieldguide-base")
    assert (
        small.parameters == base_card()["parameters"]
        and 0 < small.vision < small.parameters
        and (small.hidden, small.layers) == (128, 3)
    )
    assert model_size(str(shutil.copytree(PACKAGED["fieldguide-base"], tmp_path / "copy"))) == small
    assert model_size("Qwen/Qwen2.5-VL-7B-Instruct") == SEVEN and model_size("someone/else") is None


def test_a_policy_in_several_files_is_counted_once(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 4, "num_hidden_layers": 2}))
    save_file({"model.a": torch.zeros(2, 3)}, tmp_path / "model-1.safetensors")
    save_file({"visual.b": torch.zeros(5), "scalar": torch.tensor(1.0)}, tmp_path / "model-2.safetensors")
    assert model_size(str(tmp_path)) == (12, 5, 4, 2)


def test_adapters_of_the_published_rank_have_the_published_size():
    "Rank 64 on q, k, v, o, gate, up and down of Qwen2.5-7B: 161.5 million parameters (counted layer by layer)."
    width, kv, inner = 3584, 512, 18944
    exact = 28 * 64 * ((width + width) * 2 + (width + kv) * 2 + (width + inner) * 3)
    assert exact == 161_480_704 and abs(lora_parameters(SEVEN, 64) / exact - 1) < 0.01


def test_memory_has_the_parts_that_a_method_needs():
    recipe = load_recipe(MAIN)
    parts = memory(recipe, SEVEN, 4)
    assert (
        set(parts) == {"weights", "training state", "activations"}
        and parts["weights"] == pytest.approx(16.58)
        and parts["training state"] == pytest.approx(2.6, abs=0.05)
    )
    assert memory(recipe, SEVEN, 8) == parts, "the same micro-batch on each GPU"
    assert memory(load_recipe(MAIN, ["micro_batch=16"]), SEVEN, 4)["activations"] == pytest.approx(
        parts["activations"] / 2
    )
    whole = memory(load_recipe(MAIN, ["lora_rank=0", "export=merged"]), SEVEN, 4)
    assert whole["reference"] == whole["weights"] and whole["training state"] > 100, (
        "the whole model: more than a GPU holds"
    )


def test_time_falls_with_gpus_and_rises_with_steps():
    recipe, longer = load_recipe(MAIN), load_recipe(MAIN, ["epochs=30"])
    assert hours(recipe, SEVEN, 4) == pytest.approx(hours(recipe, SEVEN, 1) / 4)
    assert hours(longer, SEVEN, 1) == pytest.approx(2 * hours(recipe, SEVEN, 1))
    assert 5 < hours(recipe, SEVEN, 4, 312e12) < 25, "the release allowed itself 10 hours on 4 GPUs"


# -- the plan


@pytest.mark.parametrize(
    "world, sizes",
    [
        (1, "1 processes, per_device_train_batch_size 32, steps_per_generation 80, gradient_accumulation_steps 40"),
        (2, "2 processes, per_device_train_batch_size 32, steps_per_generation 40, gradient_accumulation_steps 20"),
        (4, "4 processes, per_device_train_batch_size 32, steps_per_generation 20, gradient_accumulation_steps 10"),
        (8, "8 processes, per_device_train_batch_size 32, steps_per_generation 10, gradient_accumulation_steps 5"),
    ],
)
def test_the_plan_of_the_published_run(world, sizes):
    lines = plan(load_recipe(MAIN), world)
    assert lines[:3] == [
        "paper/speciarl: grpo, rule dynamic, Qwen/Qwen2.5-VL-7B-Instruct on 3000 of cub200",
        "330 steps of 128 prompts; 256 prompts x 10 rollouts at once",
        sizes,
    ]
    assert re.fullmatch(
        r"memory per GPU: \d+\.\d GB \(weights 16\.6, training state 2\.6, activations \d+\.\d\), and 45 % of the "
        r"GPU for vLLM while it is awake",
        lines[3],
    )
    assert re.fullmatch(rf"time: about [\d.]+ hours on {world} H100 or H200", lines[4])
    assert lines[5] == "download: Qwen/Qwen2.5-VL-7B-Instruct from the Hugging Face hub, unless it is in its cache"
    assert lines[6].startswith("judge: vllm serve Qwen/Qwen3-30B-A3B-Instruct-2507-FP8 ") and len(lines) == 7


def test_the_plan_of_a_small_run_needs_nothing():
    lines = plan(load_recipe("smoke/speciarl"))
    assert (
        lines[0] == "smoke/speciarl: grpo, rule dynamic, fieldguide-base on 400 of birds"
        and lines[-1] == "time: under a second per step on one core"
        and len(lines) == 5
    )
    assert services(load_recipe("smoke/speciarl")) == []


def test_the_plan_of_an_unknown_policy_says_what_is_not_known():
    lines = plan(load_recipe("smoke/sft", ["policy=someone/else"]))
    assert lines[-2:] == [
        "memory and time: not known for someone/else, which is not on this disk",
        "download: someone/else from the Hugging Face hub, unless it is in its cache",
    ]
    assert "rollouts" not in "".join(lines)


def test_a_server_for_rollouts_is_a_service():
    assert services(load_recipe(MAIN, ["engine=vllm-server"]))[-1].startswith(
        "rollouts: VLLM_SERVER_DEV_MODE=1 vllm serve Qwen/Qwen2.5-VL-7B-Instruct --weight-transfer-config "
        '\'{"backend":"nccl"}\''
    )


# -- the checks


def test_what_an_epoch_leaves_over_is_said():
    assert [check.sentence for check in size_checks(load_recipe(MAIN), 4)] == [
        "batch: 4 processes x 32 answers x 10 accumulated = 128 prompts per step; 20 such per generation",
        "2816 of 3000 images in an epoch; the last 184 do not fill a generation",
        "a checkpoint every 22 steps, at the end of a generation",
    ]
    assert size_checks(load_recipe("smoke/speciarl"), 1)[1] == Check(True, "all 400 images in an epoch")


def test_packages_of_other_versions_are_named(monkeypatch, module):
    found = {"trl": Version("1.17.2"), "transformers": Version("5.20"), "vllm": None}
    monkeypatch.setattr(module, "parsed_version", found.get)
    assert version_checks(load_recipe("smoke/speciarl")) == [
        Check(False, "trl 1.17.2 (the mends were written for 1.16: pip install 'trl==1.16.*')")
    ]
    assert version_checks(load_recipe(MAIN))[1:] == [
        Check(False, "vllm None (engine vllm needs it: pip install 'speciarl[vllm]')"),
        Check(False, "transformers 5.20 (below 5.18 beside vLLM 0.31)"),
    ]
    found |= {"trl": None}
    assert not version_checks(load_recipe("smoke/speciarl"))[0].holds
    found |= {"trl": Version("1.16.3"), "transformers": Version("5.17"), "vllm": Version("0.31")}
    assert all(check.holds for check in version_checks(load_recipe(MAIN)))


def test_data_sets_are_looked_for(tmp_path):
    recipe = load_recipe(MAIN)
    assert data_checks(recipe, None) == [Check(False, "data set cub200 (say where with --data-root)")]
    assert data_checks(recipe, tmp_path) == [
        Check(False, f"data set cub200 in {tmp_path}/cub200 (speciarl data download cub200 --out {tmp_path})")
    ]
    (tmp_path / "cub200").mkdir()
    assert data_checks(recipe, tmp_path)[0].holds and data_checks(load_recipe("smoke/speciarl"), None) == []


def test_a_judge_that_is_not_there_is_one_sentence():
    (check,) = judge_checks(load_recipe(MAIN), NOWHERE)
    assert not check.holds and NOWHERE in check.sentence and "\n" not in check.sentence
    assert judge_checks(load_recipe("smoke/speciarl")) == judge_checks(load_recipe("paper/sft")) == []


def test_a_judge_that_answers(judge_server):
    recipe = load_recipe(MAIN, ["judge_model=judge"])
    assert judge_checks(recipe, judge_server.url) == [Check(True, f"judge judge answers at {judge_server.url}")]
    judge_server.set(models=["another"])
    (check,) = judge_checks(recipe, judge_server.url)
    assert check == Check(False, "the server has no model 'judge'; it has another")


def test_nothing_is_loaded_for_a_plan(monkeypatch, module):
    "A plan takes no model and no pictures."
    training = importlib.import_module("speciarl.training.loop")
    for name in ("load_policy", "training_samples", "make_trainer"):
        monkeypatch.setattr(training, name, lambda *args, **options: pytest.fail("something was loaded"))
    assert plan(load_recipe(MAIN), 4) and not all(
        check.holds for check in checks(load_recipe(MAIN), 4, judge_url=NOWHERE)
    )


# -- on the command line


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="speciarl")


def test_train_plan_prints_plan_and_checks_and_runs_nothing(tmp_path):
    done = call("train", "smoke/speciarl", "--plan", "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[: len(plan(load_recipe("smoke/speciarl")))] == plan(load_recipe("smoke/speciarl"))
    assert "ok       all 400 images in an epoch" in done.stdout and not (tmp_path / "run").exists()


def test_train_plan_ends_with_1_if_something_is_missing():
    done = call("train", MAIN, "--plan", "--processes", 4, "--judge-url", NOWHERE)
    assert done.exit_code == 1, done.output
    assert "not yet  data set cub200 (say where with --data-root)" in done.stdout
    assert any(line.startswith("not yet  ") and NOWHERE in line for line in done.stdout.splitlines())


def test_an_impossible_plan_is_one_line():
    done = call("train", MAIN, "--plan", "--processes", 3)
    assert (done.exit_code, done.stdout) == (2, "")
    assert (
        done.stderr
        == "error: paper/speciarl: 256 prompts per generation do not divide among 3 processes; use a number of "
        "processes that divides 256\n"
    )


def test_doctor_takes_a_recipe():
    done = call("doctor", "--recipe", "smoke/speciarl")
    assert plan(load_recipe("smoke/speciarl"))[1] in done.stdout.splitlines(), done.output
