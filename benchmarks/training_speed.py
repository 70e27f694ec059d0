"""What our part of a GRPO step costs: against TRL's own trainer, and the share of rewards and judging; and how long the
small run takes.

    OMP_NUM_THREADS=1 python benchmarks/training_speed.py [--pairs 20] [--warm 3] [--steps 60] [--out FILE]

The step is that of the smallest policy, 8 prompts x 10 rollouts (recipe smoke/speciarl). Ours samples, judges, rewards
and logs rollouts; TRL's own `GRPOTrainer` has a reward function that returns a constant, and pictures in its rows. The
two trainers are stepped in turn in one process, in changing order, from the same weights and on the same prompts, so
that what else the machine does meets both alike. As answers differ in length, and with them the work, every answer is
made to have all tokens of the limit, and the learning rate is as good as 0, so that the two policies stay one. A step
is taken in wall time and in processor time of the process. Printed are the medians of the ratios of the pairs, and
their quartiles. The load average says how busy the machine was with other things before.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import torch
from datasets import Dataset
from trl import GRPOTrainer

from speciarl.policy.model import load_policy
from speciarl.training.loop import train
from speciarl.training.recipe import load_recipe
from speciarl.training.settings import (
    freeze_vision,
    grpo_config,
    make_trainer,
    picture_opener,
    recipe_judge,
    training_rows,
    training_samples,
)

LIMITS = {"ratio": 1.03, "share": 0.01, "run": 90.0}


def constant(completions, **columns) -> list[float]:
    return [1.0] * len(completions)


def ours(recipe, folder: Path):
    policy = load_policy(recipe.policy, dtype=torch.float32, device="cpu")
    return make_trainer(recipe, policy, training_samples(recipe), folder, recipe_judge(recipe))


def stock(recipe, folder: Path):
    "TRL's trainer as its documentation has it: pictures in the rows, a reward function."
    policy, samples = load_policy(recipe.policy, dtype=torch.float32, device="cpu"), training_samples(recipe)
    freeze_vision(policy.model)
    for token in ("eos_token_id", "pad_token_id"):
        setattr(policy.model.config, token, getattr(policy.processor.tokenizer, token))
    opener = picture_opener(samples)
    rows = [{**row, "image": opener(row["picture"])} for row in training_rows(samples, recipe.prompt)]
    return GRPOTrainer(
        policy.model,
        constant,
        grpo_config(recipe, folder),
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.processor,
    )


class Stepper:
    "A trainer that is stepped from outside: sampling, rewards, loss, gradient, optimiser."

    def __init__(self, trainer):
        self.trainer = trainer
        trainer.generation_config.min_new_tokens = trainer.generation_config.max_new_tokens  # equal work in all steps
        trainer.create_optimizer_and_scheduler(num_training_steps=1000)
        trainer.current_gradient_accumulation_steps = 1
        self.batches = iter(trainer.get_train_dataloader())

    def step(self) -> tuple[float, float]:
        "Wall and processor seconds of one step."
        batch = next(self.batches)
        self.trainer._step = 0  # every step begins a generation
        torch.manual_seed(0)
        wall, processor = time.perf_counter(), time.process_time()
        self.trainer.training_step(self.trainer.model.train(), batch, None)
        torch.nn.utils.clip_grad_norm_(self.trainer.model.parameters(), 1.0)
        self.trainer.optimizer.step()
        self.trainer.optimizer.zero_grad()
        return time.perf_counter() - wall, time.process_time() - processor


def paired(folder: Path, pairs: int, warm: int) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    "Times of `pairs` pairs of steps, ours and TRL's, after `warm` that do not count."
    recipe = load_recipe("smoke/speciarl", ["learning_rate=1.0e-30"])
    (folder / "ours").mkdir()
    steppers = [Stepper(ours(recipe, folder / "ours")), Stepper(stock(recipe, folder / "stock"))]
    found = []
    for i in range(warm + pairs):
        order = (0, 1) if i % 2 else (1, 0)
        times = {which: steppers[which].step() for which in order}
        found.append((times[0], times[1]))
    return found[warm:]


def quartiles(values: list[float], digits: int = 3) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} (quartiles {low:.{digits}f} to {high:.{digits}f})"


def small_run(folder: Path, steps: int) -> tuple[float, list[dict]]:
    "Seconds of a whole run, loading and saving included, and the times of its steps."
    started = time.perf_counter()
    run = train(load_recipe("laptop/speciarl", [f"steps={steps}"]), folder / "run")
    return time.perf_counter() - started, [json.loads(line) for line in (run / "timing.jsonl").read_text().splitlines()]


def report(pairs: int, warm: int, steps: int) -> list[str]:
    lines = [
        f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores, "
        f"{platform.machine()}, one thread; load average {os.getloadavg()[0]:.1f} before",
        "",
    ]
    with tempfile.TemporaryDirectory() as name:
        found = paired(Path(name), pairs, warm)
        lines.append(f"a GRPO step of 8 x 10 answers of 16 tokens, {pairs} pairs of steps in turn")
        for title, i in (("wall time", 0), ("processor time", 1)):
            mine, theirs = ([pair[who][i] for pair in found] for who in (0, 1))
            lines.append(
                f"  {title:16}ours {statistics.median(mine):.3f} s, TRL with a constant reward "
                f"{statistics.median(theirs):.3f} s"
            )
            lines.append(
                f"  {'':16}ours / TRL, pair by pair: {quartiles([a / b for a, b in zip(mine, theirs)])}; at most "
                f"{LIMITS['ratio']} wanted"
            )
        seconds, rows = small_run(Path(name), steps)
    shares = [row["judge_seconds"] / row["step_time"] for row in rows[1:]]
    lines += [
        "",
        f"the small run, {steps} steps of 8 x 10 (laptop/speciarl)",
        f"  judging and rewards / step, tree judge: {quartiles(shares, 5)}, first step "
        f"{rows[0]['judge_seconds'] / rows[0]['step_time']:.5f}; at most {LIMITS['share']} wanted",
        f"  whole run with loading, checkpoints and saving: {seconds:.1f} s; at most {LIMITS['run']:g} s wanted",
    ]
    return [*lines, f"load average {os.getloadavg()[0]:.1f} after"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--warm", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, help="write the command and the figures to this file, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    command = (
        f"$ OMP_NUM_THREADS=1 python benchmarks/training_speed.py --pairs {options.pairs} --warm "
        f"{options.warm} --steps {options.steps}"
    )
    text = "\n".join([command, *report(options.pairs, options.warm, options.steps)]) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")
