"""What a TAPO step costs against a GRPO step with the same number of rollouts, and how long the small TAPO run takes.

    OMP_NUM_THREADS=1 python benchmarks/tapo_speed.py [--pairs 10] [--warm 2] [--steps 60] [--policy NAME] [--out FILE]

A step is that of the smallest policy: 8 prompts x 10 rollouts of 48 tokens, sampled, judged and learned from once.
TAPO's is that of recipe smoke/tapo, vision tower trained. It is compared with two: the same recipe with nothing of TAPO
switched on (smoke/tapo_off), which is what the triplets cost, and the main GRPO recipe (smoke/speciarl: KL, vision
tower frozen). The three trainers are stepped in turn in one process, in changing order. So that the work is equal,
every answer has all tokens of the limit, and the learning rate is 0, so that the weights stay as they are. Printed are
the medians of the ratios, pair by pair, and their quartiles, in wall time and in processor time. The small run is
laptop/tapo as it is, from the packaged base or from --policy; answers are as long as the policy makes them.
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
from training_speed import Stepper, quartiles

from speciarl.fine_r1.tapo import TAPO
from speciarl.policy.model import load_policy
from speciarl.training.loop import train
from speciarl.training.recipe import load_recipe
from speciarl.training.settings import make_trainer, recipe_judge, training_samples

LIMITS = {"ratio": 1.6, "run": 150.0}
EQUAL = ["prompts_per_generation=8", "prompts_per_step=8", "max_tokens=48"]
STEPS = {"tapo": "smoke/tapo", "off": "smoke/tapo_off", "grpo": "smoke/speciarl"}


def stepper(name: str, folder: Path) -> Stepper:
    recipe = load_recipe(STEPS[name], EQUAL)
    make = TAPO.trainer if recipe.method == "tapo" else make_trainer
    folder.mkdir()
    policy = load_policy(recipe.policy, dtype=torch.float32, device="cpu")
    found = Stepper(make(recipe, policy, training_samples(recipe), folder, recipe_judge(recipe)))
    for group in found.trainer.optimizer.param_groups:
        group["lr"] = 0.0
    return found


def in_turn(folder: Path, pairs: int, warm: int) -> list[dict[str, tuple[float, float]]]:
    "Wall and processor seconds of each trainer's steps, after `warm` that do not count."
    steppers, found = {name: stepper(name, folder / name) for name in STEPS}, []
    for i in range(warm + pairs):
        order = list(STEPS)[i % 3 :] + list(STEPS)[: i % 3]
        found.append({name: steppers[name].step() for name in order})
    return found[warm:]


def small_run(folder: Path, steps: int, policy: str) -> tuple[float, list[dict]]:
    "Seconds of a whole run, loading, triplets and saving included, and its log."
    started = time.perf_counter()
    run = train(load_recipe("laptop/tapo", [f"steps={steps}", f"policy={policy}"]), folder / "run", way=TAPO)
    return time.perf_counter() - started, [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def report(pairs: int, warm: int, steps: int, policy: str) -> list[str]:
    lines = [
        f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores, "
        f"{platform.machine()}, one thread; load average {os.getloadavg()[0]:.1f} before",
        "",
    ]
    with tempfile.TemporaryDirectory() as name:
        found = in_turn(Path(name), pairs, warm)
        lines.append(f"a step of 8 x 10 answers of 48 tokens, {pairs} rounds of steps in turn")
        for title, i in (("wall time", 0), ("processor time", 1)):
            seconds = {which: [one[which][i] for one in found] for which in STEPS}
            lines.append(
                f"  {title:16}TAPO {statistics.median(seconds['tapo']):.2f} s, the same without triplets "
                f"{statistics.median(seconds['off']):.2f} s, main GRPO {statistics.median(seconds['grpo']):.2f} s"
            )
            for which, words in (("off", "TAPO / the same without triplets"), ("grpo", "TAPO / main GRPO")):
                lines.append(
                    f"  {'':16}{words}: {quartiles([a / b for a, b in zip(seconds['tapo'], seconds[which])])}; at "
                    f"most {LIMITS['ratio']} wanted"
                )
        seconds, log = small_run(Path(name), steps, policy)
    length = statistics.mean(row["mean_length"] for row in log if "mean_length" in row)
    lines += [
        "",
        f"the small run, {steps} steps of 8 x 10 (laptop/tapo, from {policy}; answers of {length:.0f} tokens on "
        "average)",
        f"  whole run with loading, triplets, checkpoints and saving: {seconds:.1f} s; at most {LIMITS['run']:g} s "
        "wanted",
    ]
    return [*lines, f"load average {os.getloadavg()[0]:.1f} after"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--warm", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--policy", default="fieldguide-base", help="what the small run starts from")
    parser.add_argument("--out", type=Path, help="write the command and the figures to this file, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    command = (
        f"$ OMP_NUM_THREADS=1 python benchmarks/tapo_speed.py --pairs {options.pairs} --warm {options.warm} "
        f"--steps {options.steps}"
    )
    text = "\n".join([command, *report(options.pairs, options.warm, options.steps, options.policy)]) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")
