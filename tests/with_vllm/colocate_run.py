"""Two steps of GRPO with colocated vLLM on CPU, by speciarl's trainer or by TRL's own; what was seen goes to a JSON
file.

    python tests/with_vllm/colocate_run.py ours|stock FOLDER        (in the environment of `make test-vllm`)

In a process of its own, since a process can hold one engine.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch
from trl import GRPOTrainer

from speciarl.policy.model import load_policy
from speciarl.training import loop as training
from speciarl.training.recipe import load_recipe
from speciarl.training.settings import make_trainer, recipe_judge, training_samples
from speciarl.training.trainer import one_pad, with_pictures

PICTURE_TOKENS = {"image": 6, "video": 7}  # placeholders of the small policy


class Stock(GRPOTrainer):
    "TRL's trainer; the only mend is that it opens pictures by name, so that it can be given the same rows."

    def __init__(self, *args, pictures=None, drop_flat_groups=False, **others):
        self.pictures = pictures
        super().__init__(*args, **others)

    def _generate_and_score_completions(self, inputs):
        return super()._generate_and_score_completions(with_pictures(inputs, self.pictures))


def recipe():
    "The main small recipe with LoRA, at a rate that moves the adapter in one step as far as a run does."
    return load_recipe("smoke/speciarl").model_copy(
        update=dict(
            engine="vllm",
            data={"birds": 8},
            rollouts=8,
            prompts_per_generation=4,
            prompts_per_step=4,
            micro_batch=32,
            steps=2,
            max_prompt=256,
            lora_rank=8,
            learning_rate=0.02,
        )
    )


def difference(trainer, batch: dict, mine: torch.Tensor) -> dict:
    "Between log-probabilities of the trainer and those vLLM gave with its samples, over the tokens of the answers."
    told = (mine - batch["sampling_per_token_logps"]).abs()[batch["completion_mask"].bool()]
    return {"mean": told.mean().item(), "max": told.max().item()}


def logps(trainer, batch: dict) -> torch.Tensor:
    "What the trainer's model says of the answers of `batch`."
    ids, mask = (torch.cat([batch[f"prompt_{kind}"], batch[f"completion_{kind}"]], 1) for kind in ("ids", "mask"))
    fields = {key: batch[key] for key in ("pixel_values", "image_grid_thw", "num_images")} | {
        "mm_token_type_ids": (ids == PICTURE_TOKENS["image"]).long()
    }
    with torch.no_grad():
        return trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, batch["completion_ids"].shape[1], **fields
        )[0]


def watch(trainer, seen: dict) -> None:
    """Note, of each generation: how long vLLM's prompts and the trainer's are, the log-probabilities, with the
    adapter and without, and how long a sync takes."""
    score, generate, sync = (
        trainer._generate_and_score_completions,
        trainer.vllm_generation.generate,
        trainer.vllm_generation.sync_weights,
    )

    def scored(inputs):
        batch = score(inputs)
        step = {"adapter_on": difference(trainer, batch, logps(trainer, batch))}
        with trainer.accelerator.unwrap_model(trainer.model).disable_adapter():
            step["adapter_off"] = difference(trainer, batch, logps(trainer, batch))
        seen["generations"].append(
            {
                **seen.pop("prompts"),
                "trainer": batch["prompt_mask"].sum(1).tolist(),
                "tokens": int(batch["completion_mask"].sum()),
                **step,
            }
        )
        return batch

    def generated(prompts, images, num_generations, profiler=None):
        found = generate(prompts=prompts, images=images, num_generations=num_generations, profiler=profiler)
        seen["prompts"] = {
            "given": list(map(len, prompts)),
            "vllm": list(map(len, found[0])),
            "pads": [ids.count(PICTURE_TOKENS["image"]) for ids in found[0]],
        }
        seen["last"] = (prompts, images)
        return found

    def synced():
        began = time.time()
        sync()
        seen["sync_seconds"].append(round(time.time() - began, 1))

    trainer._generate_and_score_completions, trainer.vllm_generation.generate, trainer.vllm_generation.sync_weights = (
        scored,
        generated,
        synced,
    )


def sampled_placeholders(trainer, seen: dict) -> dict:
    """How many of vLLM's samples hold a placeholder, once their scores are made equal to those of two tokens that
    every answer has."""
    model, tokenizer = trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class.tokenizer
    rows = model.get_input_embeddings().weight.data  # tied to the scores; as inputs the two rows are never used
    for kind, twin in (("image", "<think>"), ("video", "</think>")):
        rows[PICTURE_TOKENS[kind]] = rows[tokenizer.convert_tokens_to_ids(twin)]
    trainer.vllm_generation.sync_weights()
    prompts, images = seen["last"]
    prompts = [one_pad(ids, PICTURE_TOKENS["image"]) for ids in prompts]
    answers = trainer.vllm_generation.generate(prompts=prompts, images=images, num_generations=1)[1]
    return {
        "answers": len(answers),
        **{kind: sum(token in ids for ids in answers) for kind, token in PICTURE_TOKENS.items()},
    }


def main(kind: str, folder: Path) -> None:
    torch.set_num_threads(1)
    if kind == "stock":
        training.SpecificityTrainer = Stock
    chosen = recipe()
    policy = load_policy(chosen.policy, dtype=torch.float32)
    trainer = make_trainer(chosen, policy, training_samples(chosen), folder, recipe_judge(chosen))
    model = trainer.accelerator.unwrap_model(trainer.model)
    base = {name: weight.detach().clone() for name, weight in model.named_parameters() if model.prefix not in name}
    seen = {"generations": [], "sync_seconds": []}
    watch(trainer, seen)
    began = time.time()
    trainer.train()
    seen["train_seconds"] = round(time.time() - began, 1)
    changed = sum(int((weight != base[name]).sum()) for name, weight in model.named_parameters() if name in base)
    seen["base"] = {"entries": sum(weight.numel() for weight in base.values()), "changed": changed}
    seen["placeholders"] = sampled_placeholders(trainer, seen)
    seen["memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    del seen["prompts"], seen["last"]
    (folder / "seen.json").write_text(json.dumps(seen, indent=1), encoding="utf-8")
    trainer.vllm_generation.llm.llm_engine.engine_core.shutdown()  # before the process group it is part of is gone
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
