"""The small policy inside the real vLLM, asked by `VLLMEngine`; what it answered goes to a JSON file.

    python tests/with_vllm/engine_run.py FOLDER        (in the environment of `make test-vllm`)

In a process of its own, since a process can hold one engine.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from speciarl.data.fieldguide import plates
from speciarl.policy.engines import Sampling, TransformersEngine, VLLMEngine
from speciarl.policy.model import load_policy
from speciarl.policy.predict import predict
from speciarl.policy.prompts import load_prompt

SMALL = dict(max_model_len=256, max_num_seqs=64, enforce_eager=True, dtype="float32")


def save_adapter(folder: Path) -> Path:
    "A LoRA adapter large enough to change what the small policy says."
    torch.manual_seed(0)
    model = get_peft_model(
        load_policy("fieldguide-base", device="cpu").model,
        LoraConfig(r=4, lora_alpha=12, target_modules=r".*language_model.*\.(q_proj|v_proj)", init_lora_weights=False),
    )
    model.peft_config["default"].base_model_name_or_path = "fieldguide-base"
    model.save_pretrained(folder)
    return folder


def main(folder: Path) -> None:
    samples, prompt, seen = plates("birds", "test", 12), load_prompt("general"), {}
    adapter = save_adapter(folder / "adapter")
    engine = VLLMEngine(adapter, **SMALL)
    for name, how in (
        ("greedy", Sampling(max_tokens=24)),
        ("many", Sampling(8, temperature=1.0, max_tokens=24)),
        ("again", Sampling(8, temperature=1.0, max_tokens=24)),
    ):
        seen[name] = [row["answer"] for row in predict(engine, samples, prompt, how=how, out=folder / f"{name}.jsonl")]
    for name, policy in (
        ("adapted", load_policy(adapter, device="cpu")),
        ("base", load_policy("fieldguide-base", device="cpu")),
    ):
        seen[name] = [
            row["answer"] for row in predict(TransformersEngine(policy), samples, prompt, how=Sampling(max_tokens=24))
        ]
    (folder / "seen.json").write_text(json.dumps(seen | {"facts": engine.describe()}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
