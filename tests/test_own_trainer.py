"The reward inside a trainer of one's own: TRL's, as it is, which evaluates with groups of another size."

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
