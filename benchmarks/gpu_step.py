"""One GRPO step of the released architecture with our trainer, on one GPU, with random weights: time, tokens,
utilisation, memory, share of the reward.

    python benchmarks/gpu_step.py [--size 7b|3b|tiny] [--prompts 8] [--rollouts 10] [--tokens 200] [--steps 3]
                                  [--micro 16] [--pixels 401408] [--out FILE]

No weights are downloaded: Qwen2.5-VL is built from the numbers below, its weights drawn on the device in bfloat16, LoRA
of rank 64 on the language model. Pictures are noise, words those of the field guide; sampling is by transformers, and
every answer is made as long as --tokens, as a model without training does not stop. The reward is `SpecificityReward`
with the tree judge; as random weights write nothing that could be judged, it is given names of the field guide, each in
words of its own, in place of what was sampled. `tiny` is the same code on a model that a CPU can run. Utilisation
counts the operations that the step needs of the language model and the vision tower (2 per parameter and token forward,
4 backward; sampling, two scorings, and one step of learning; what checkpointing computes again is not counted), over
time and peak.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import PrinterCallback, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from trl import GRPOConfig

from speciarl.data.fieldguide import DOMAINS, all_words, plates
from speciarl.data.trees import load_trees
from speciarl.policy.model import StillProcessor, small_processor
from speciarl.policy.prompts import load_prompt
from speciarl.training.recipe import load_recipe
from speciarl.training.reward import SpecificityReward
from speciarl.training.settings import freeze_vision, lora_config, recipe_judge
from speciarl.training.trainer import SpecificityTrainer

# the published configurations of Qwen2.5-VL: text width, inner width, layers, heads, key-value heads; vision depth and
# inner width
SIZES = {
    "7b": dict(
        hidden=3584,
        inner=18944,
        layers=28,
        heads=28,
        kv=4,
        depth=32,
        vision=1280,
        vision_inner=3420,
        tied=False,
        words=152064,
        sections=[16, 24, 24],
    ),
    "3b": dict(
        hidden=2048,
        inner=11008,
        layers=36,
        heads=16,
        kv=2,
        depth=32,
        vision=1280,
        vision_inner=3420,
        tied=True,
        words=151936,
        sections=[16, 24, 24],
    ),
    "tiny": dict(
        hidden=128,
        inner=384,
        layers=3,
        heads=4,
        kv=2,
        depth=3,
        vision=96,
        vision_inner=256,
        tied=True,
        words=4096,
        sections=[4, 6, 6],
    ),
}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}  # bfloat16, dense


def configuration(size: dict, processor: StillProcessor) -> Qwen2_5_VLConfig:
    "Qwen2.5-VL of this size, for the tokens of `processor`."
    token = processor.tokenizer.convert_tokens_to_ids
    text = dict(
        vocab_size=size["words"],
        hidden_size=size["hidden"],
        intermediate_size=size["inner"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv"],
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        bos_token_id=None,
        eos_token_id=token("<|im_end|>"),
        pad_token_id=token("<pad>"),
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": size["sections"]},
        tie_word_embeddings=size["tied"],
    )
    full = [7, 15, 23, 31] if size["depth"] == 32 else list(range(size["depth"]))
    vision = dict(
        depth=size["depth"],
        hidden_size=size["vision"],
        intermediate_size=size["vision_inner"],
        num_heads=16 if size["depth"] == 32 else 4,
        patch_size=14,
        spatial_merge_size=2,
        temporal_patch_size=2,
        window_size=112 if size["depth"] == 32 else 56,
        fullatt_block_indexes=full,
        out_hidden_size=size["hidden"],
    )
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        tie_word_embeddings=size["tied"],
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )


def build(size: dict, processor: StillProcessor, device: str, dtype: torch.dtype) -> Qwen2_5_VLForConditionalGeneration:
    "The model, its weights drawn where they are needed."
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen2_5_VLForConditionalGeneration._from_config(
                configuration(size, processor), attn_implementation="sdpa"
            )
    finally:
        torch.set_default_dtype(before)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = (
        model.config.text_config.eos_token_id,
        model.config.text_config.pad_token_id,
    )
    model.config.eos_token_id, model.config.pad_token_id = (
        model.generation_config.eos_token_id,
        model.generation_config.pad_token_id,
    )
    return model


def rows(prompts: int, pixels: int) -> tuple[list[dict], dict[str, Image.Image]]:
    "Samples of the field guide with pictures of `pixels` pixels of noise."
    side = int(pixels**0.5) // 28 * 28
    draw, chat = np.random.default_rng(0), [{"role": "user", "content": load_prompt("general")}]
    samples = plates("birds", "train", prompts)
    pictures = {
        sample.id: Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)) for sample in samples
    }
    return [dict(prompt=chat, picture=s.id, label=s.label, dataset=s.dataset, uid=s.id) for s in samples], pictures


class Names:
    "In place of the tokenizer: answers that a judge has not seen before, one for each completion."

    def __init__(self):
        self.names, self.given = [name for names in classes().values() for name in names], 0

    def batch_decode(self, ids, **options) -> list[str]:
        start, self.given = self.given, self.given + len(ids)
        return [
            f"<think> hm </think> <answer> number {i}, a {self.names[i % len(self.names)]} </answer>"
            for i in range(start, self.given)
        ]


def classes() -> dict[str, list[str]]:
    "The class names of the field guide, by domain."
    return {name: list(tree.classes()) for name, tree in load_trees(DOMAINS).items()}


def settings(options, folder: str, large: bool) -> GRPOConfig:
    "The published algorithm (recipe paper/speciarl) for one step per generation."
    answers = options.prompts * options.rollouts
    recipe = load_recipe("paper/speciarl")
    return GRPOConfig(
        output_dir=folder,
        max_steps=options.steps + 1,
        per_device_train_batch_size=options.micro,
        gradient_accumulation_steps=answers // options.micro,
        steps_per_generation=answers // options.micro,
        num_generations=options.rollouts,
        max_completion_length=options.tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=recipe.kl,
        use_bias_correction_kl=False,
        delta=recipe.dual_clip,
        loss_type=recipe.loss,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=recipe.weight_decay,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=not large,
        bf16=large,
        gradient_checkpointing=large,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        log_multimodal=False,
        generation_kwargs={"min_new_tokens": options.tokens},
    )


def operations(model, answers: int, prompt: int, tokens: int, patches: int) -> float:
    """Operations that a step needs: sampling, old and reference scoring (6 per parameter and token), learning with a
    frozen base (4) and one more pass over the pictures for each."""
    vision = sum(p.numel() for name, p in model.named_parameters() if "visual" in name)
    text = sum(
        p.numel()
        for name, p in model.named_parameters()
        if "visual" not in name and "embed_tokens" not in name and "lora_" not in name
    )
    return answers * ((6 + 4) * text * (prompt + tokens) + 4 * 2 * vision * patches)


def measure(options) -> list[str]:
    "Run the steps and put the figures into lines."
    large = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if large else ("cpu", torch.float32)
    processor = small_processor([*all_words(), load_prompt("general")])
    processor.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": options.pixels}
    model = build(SIZES[options.size], processor, device, dtype)
    size = sum(p.numel() for p in model.parameters())
    freeze_vision(model)
    data, pictures = rows(options.prompts, options.pixels)
    recipe = load_recipe("smoke/speciarl", ["lora_rank=64", "lora_alpha=32"])
    with tempfile.TemporaryDirectory() as folder:
        reward = SpecificityReward(recipe_judge(recipe), "dynamic", options.rollouts, tokenizer=Names())
        trainer = SpecificityTrainer(
            model,
            reward,
            settings(options, folder, large),
            train_dataset=Dataset.from_list(data),
            processing_class=processor,
            pictures=pictures.__getitem__,
            peft_config=lora_config(recipe),
        )
        trainer.remove_callback(PrinterCallback)
        if large:
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        trainer.train()
        wall = time.perf_counter() - started
    logged = [row for row in trainer.state.log_history if "loss" in row][1:]  # the first step warms up
    seconds = statistics.median(row["step_time"] for row in logged)
    judged = statistics.median(row["judge_seconds"] for row in logged)
    answers, (patches, image_tokens) = (
        options.prompts * options.rollouts,
        ((int(options.pixels**0.5) // 28 * 2) ** 2, (int(options.pixels**0.5) // 28) ** 2),
    )
    prompt = image_tokens + 40
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    lines = [
        f"{options.size}: {size / 1e9:.4g} billion parameters, {trained / 1e6:.1f} million trained (LoRA 64), "
        f"{str(dtype).removeprefix('torch.')}; {options.prompts} prompts x {options.rollouts} rollouts, "
        f"about {prompt} prompt tokens, {options.tokens} answer tokens, micro-batch {options.micro}",
        f"step                {seconds:.2f} s (median of {len(logged)}; all {len(logged) + 1} took {wall:.1f} s)",
        f"answer tokens       {answers * options.tokens / seconds:,.0f} /s",
        f"reward and judging  {judged:.4f} s, {judged / seconds:.4%} of the step",
    ]
    if not large:
        return [*lines, "utilisation, memory  not measured on a CPU"]
    peak = next((value for name, value in PEAK.items() if name in torch.cuda.get_device_name()), None)
    rate = operations(trainer.model, answers, prompt, options.tokens, patches) / seconds
    return [
        *lines,
        f"model operations    {rate / 1e12:.1f} Tflop/s"
        + (f", {rate / peak:.1%} of {peak / 1e12:.0f}" if peak else ""),
        f"peak memory         {torch.cuda.max_memory_allocated() / 1e9:.1f} GB",
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--rollouts", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--micro", type=int, default=16)
    parser.add_argument("--pixels", type=int, default=401408)
    parser.add_argument("--out", type=Path, help="write the command and the figures to this file, too")
    options = parser.parse_args()
    if options.prompts * options.rollouts % options.micro:
        parser.error(f"--micro {options.micro} does not divide {options.prompts} x {options.rollouts} answers")
    given = " ".join(f"--{name} {value}" for name, value in vars(options).items() if name != "out")
    where = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f} "
        "before"
    )
    text = (
        "\n".join(
            [
                f"$ python benchmarks/gpu_step.py {given}",
                f"Python {platform.python_version()}, torch {torch.__version__}, {where}",
                *measure(options),
            ]
        )
        + "\n"
    )
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")
