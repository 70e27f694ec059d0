"""The trainer and colocated vLLM see the same prompts and mean the same model; each fault is shown with TRL's own
trainer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment

TOKENS = 4  # of a picture of the small policy


@pytest.fixture(scope="module", params=["ours", "stock"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def seen(kind, tmp_path_factory):
    "What happened in two steps of GRPO."
    folder = tmp_path_factory.mktemp(kind)
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("colocate_run.py"), kind, folder],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=900,
    )
    assert (folder / "seen.json").exists(), run.stdout[-2000:] + run.stderr[-6000:]
    found = json.loads((folder / "seen.json").read_text())
    print(f"\n{kind}: {json.dumps({key: value for key, value in found.items() if key != 'generations'})}")
    for generation in found["generations"]:
        print({key: sorted(set(value)) if isinstance(value, list) else value for key, value in generation.items()})
    assert len(found["generations"]) == 2
    return found


def test_vllm_and_the_trainer_agree_on_the_prompts(kind, seen):
    "TRL hands over the expanded prompt, and vLLM expands its first placeholder again."
    for generation in seen["generations"]:
        assert len(generation["vllm"]) == 32
        assert set(generation["pads"]) == {TOKENS if kind == "ours" else 2 * TOKENS - 1}
        assert (generation["vllm"] == generation["trainer"]) == (kind == "ours")


def test_vllm_and_the_trainer_agree_on_log_probabilities(kind, seen):
    "vLLM computes in bfloat16 what the trainer computes in float32, hence not to the last digit."
    for generation in seen["generations"]:
        assert generation["adapter_on"]["mean"] < 0.01 if kind == "ours" else generation["adapter_on"]["mean"] > 0.05


def test_vllm_follows_the_adapter(kind, seen):
    "The adapter begins as nothing; after a step the samples are those of the model with it, not without."
    first, second = seen["generations"]
    assert first["adapter_on"] == first["adapter_off"]
    if kind == "ours":
        assert second["adapter_off"]["mean"] > 20 * second["adapter_on"]["mean"]


def test_a_sync_leaves_the_base_as_it_is(kind, seen):
    assert len(seen["sync_seconds"]) == 3 and (seen["base"]["changed"] == 0) == (kind == "ours")


def test_placeholders_are_never_sampled(kind, seen):
    found = seen["placeholders"]
    assert found["answers"] == 32
    if kind == "ours":
        assert found["image"] == found["video"] == 0
    else:
        assert found["image"] > 0 and found["video"] > 0


def test_the_train_command_runs_on_vllm(tmp_path):
    "As a user starts it."
    command = [Path(sys.executable).with_name("speciarl"), "train", "smoke/speciarl", "--out", tmp_path / "run"]
    for change in ("engine=vllm", "steps=1", "max_prompt=256", "lora_rank=8"):
        command += ["--set", change]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment(), timeout=900)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-6000:]
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(logged) == 1 and logged[0]["share_missing"] == 0 and logged[0]["share_unformatted"] < 0.5, (
        "the base policy keeps the format, so it must see what it was trained to see"
    )
    assert (
        len((tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()) == 80
        and (tmp_path / "run" / "policy" / "model.safetensors").exists()
    )
