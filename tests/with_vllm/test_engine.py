"""vLLM's answers are those of transformers, adapter included; 8 answers to an image differ among themselves and come
again with the seed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("engine_run.py"), folder],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=900,
    )
    assert (folder / "seen.json").exists(), run.stdout[-2000:] + run.stderr[-6000:]
    return json.loads((folder / "seen.json").read_text())


def test_greedy_answers_are_those_of_transformers_with_the_adapter(seen):
    assert sum(a == b for a, b in zip(seen["greedy"], seen["adapted"], strict=True)) >= 11, (
        "rounding may turn one of twelve"
    )
    assert seen["adapted"] != seen["base"] and len(set(seen["greedy"])) > 1


def test_samples_differ_and_come_again(seen):
    assert len(seen["many"]) == 96 and seen["many"] == seen["again"]
    assert any(len(set(seen["many"][i : i + 8])) > 1 for i in range(0, 96, 8))
    assert seen["facts"]["engine"] == "vllm"
