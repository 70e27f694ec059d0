"The reward inside a trainer of one's own: TRL's, as it is, which evaluates with groups of another size."

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch
from datasets import Dataset
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from speciarl.core.files import read_jsonl
from speciarl.core.scale import Category
from speciarl.judges.verdict import Verdict
from speciarl.policy.model import load_policy
from speciarl.policy.prompts import load_prompt
from speciarl.training.reward import SpecificityReward
from speciarl.training.trainer import SpecificityTrainer


def judge(pairs, datasets=None):
    return [Verdict(Category.GENERIC if "bird" in answer else Category.WRONG, "test") for _, answer in pairs]


def rows(size):
    picture, chat = Image.new("RGB", (56, 56), "navy"), [{"role": "user", "content": load_prompt("general")}]
    return Dataset.from_list([{"prompt": chat, "image": picture, "label": "gull", "uid": str(i)} for i in range(size)])


@pytest.mark.parametrize("kind", [GRPOTrainer, SpecificityTrainer])
@pytest.mark.parametrize("evaluated", [1, 2, 6])
def test_a_trainer_evaluates_with_groups_of_another_size(tmp_path, kind, evaluated):
    config = GRPOConfig(
        str(tmp_path),
        num_generations=4,
        num_generations_eval=evaluated,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=6,
        eval_strategy="steps",
        eval_steps=1,
        eval_on_start=True,
        max_steps=2,
        max_completion_length=16,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        dataloader_pin_memory=False,
    )
    policy = load_policy("fieldguide-base", dtype=torch.float32)
    reward = SpecificityReward(judge, num_generations=4, log_rollouts=tmp_path / "rollouts.jsonl")
    trainer = kind(
        policy.model, reward, config, train_dataset=rows(4), eval_dataset=rows(3), processing_class=policy.processor
    )
    trainer.train()
    written = list(read_jsonl(tmp_path / "rollouts.jsonl"))
    marked = [row for row in written if row.get("evaluation")]
    assert len(marked) == 3 * 3 * evaluated and len(written) - len(marked) == 2 * 4
    assert [row["step"] for row in marked] == [0] * 3 * evaluated + [1] * 3 * evaluated + [2] * 3 * evaluated
    evaluations = [entry for entry in trainer.state.log_history if "eval_reward" in entry]
    assert len(evaluations) == 3 and all("eval_share_generic" in entry for entry in evaluations)


# What is printed for others to copy

ROOT = Path(__file__).resolve().parent.parent


def snippet(text):
    "The block of code that has a trainer in it."
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    [block] = [block for block in blocks if "GRPOTrainer(" in block]
    return block


README = snippet((ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_snippet_of_the_readme_runs_as_it_stands(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    (tmp_path / "snippet.py").write_text(README, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "snippet.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "are in no label tree" not in done.stderr, "no advice about rows of the package's own"
    rows = list(read_jsonl(tmp_path / "out" / "rollouts.jsonl"))
    assert len(rows) == 400 and {row["step"] for row in rows} == set(range(10))
    paid = [row["reward"] for row in rows]
    assert 0 < sum(reward == 1.0 for reward in paid) < 400 and paid.count(-1.0) < 40, "the answers have the tags"


def test_the_chapter_on_the_reward_shows_the_same_lines():
    notebook = nbformat.read(ROOT / "nbs" / "7_training" / "3_reward.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert snippet(text) == README


def test_a_published_base_needs_another_name_in_one_line_and_nothing_else():
    named = [line for line in README.splitlines() if "fieldguide-base" in line]
    assert len(named) == 1 and '"Qwen/Qwen2.5-VL-3B-Instruct"' in named[0]
    assert "birds" not in named[0] and compile(
        README.replace("fieldguide-base", "Qwen/Qwen2.5-VL-3B-Instruct"), "", "exec"
    )
