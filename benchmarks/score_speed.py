"""How long it takes to score stored verdicts, with intervals, and how much memory.

    python benchmarks/score_speed.py [--images 33000] [--answers 64] [--classes 755]
                                     [--out benchmarks/results/score_speed.txt]

The verdicts are drawn: every image has its own shares of the six levels, and one in a hundred verdicts is missing, so
that nearly every image has a pattern of its own (the slow case of the bootstrap). Answers are texts, a few names per
class. Each line is the wall time of one step in this process; the last one is the sum, and the peak memory of the
process, which includes the verdicts and the answers themselves. The limits are those of the project: 60 s and 2 GB on
two cores for two million verdicts.
"""

import argparse
import os
import platform
import resource
import sys
import time
from pathlib import Path

import numpy as np

from speciarl.core.scale import Category
from speciarl.metrics.compare import by_group, paired_tests, worst
from speciarl.metrics.rates import best_of_k, best_of_k_curve, best_of_n, pass_at_k_curve, powers_of_two, score
from speciarl.metrics.resampling import intervals, intervals_of_counts
from speciarl.metrics.selection import (
    by_confidence,
    calibration_error,
    chosen,
    consensus,
    majority,
    read_answers,
    risk_area,
    with_interval,
)

SECONDS, GIGABYTES = 60, 2


def verdicts(images: int, answers: int, seed: int) -> np.ndarray:
    "Codes of shape (images, answers), int8."
    rng = np.random.default_rng(seed)
    edges = rng.dirichlet([1, 0.3, 2, 1, 2, 0.2], size=images).cumsum(1).astype(np.float32)
    codes = np.empty((images, answers), np.int8)
    for j in range(answers):
        codes[:, j] = np.minimum((edges < rng.random((images, 1), np.float32)).sum(1), max(Category))
    codes[rng.random(codes.shape) < 0.01] = -1
    return codes


def texts(codes: np.ndarray, labels: np.ndarray) -> list[list[str]]:
    "An answer for each verdict: a name of some class whose words fit the level."
    names = {
        label: [
            f"other thing {label}",
            "None",
            "bird",
            f"family {label % 40} bird",
            f"kind {label} of family {label % 40} bird",
            f"form of kind {label} of family {label % 40} bird",
        ]
        for label in set(labels.tolist())
    }
    return [[names[label][code] for code in row] for label, row in zip(labels.tolist(), codes.tolist())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("images", 33_000), ("answers", 64), ("classes", 755)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    codes, other = (verdicts(given.images, given.answers, seed) for seed in (0, 1))
    labels = np.arange(given.images) % given.classes
    answers = texts(codes, labels)
    lines, total = [], 0.0

    def step(name, work):
        nonlocal total
        start = time.perf_counter()
        result = work()
        total += (seconds := time.perf_counter() - start)
        lines.append(f"{seconds:7.2f} s  {name}")
        print(lines[-1], flush=True)
        return result

    step("S, C, HM, shares, missing", lambda: score(codes))
    step("intervals of S, C, HM over all answers (1,000 resamples)", lambda: intervals(codes[None]))
    step("intervals of the best of N", lambda: intervals(best_of_n(codes)))
    step(f"best of k, every k to {given.answers}", lambda: best_of_k_curve(codes, range(1, given.answers + 1)))
    step(f"pass@k, every k to {given.answers}", lambda: pass_at_k_curve(codes))
    step(
        "intervals of the best of 1, 2, 4, ...",
        lambda: [intervals_of_counts(best_of_k(codes[None], k)) for k in powers_of_two(given.answers)],
    )
    step(
        f"{given.classes} classes with intervals, the worst ten",
        lambda: worst(by_group(codes[None], labels.astype(str))),
    )
    step("paired comparison with another run (2,000 resamples)", lambda: paired_tests(codes[None], other[None]))
    read = step("answers read", lambda: read_answers(answers))
    vote = step("majority vote", lambda: majority(read))
    step("most specific consensus", lambda: intervals(chosen(codes, consensus(read))))
    groups = by_confidence(vote.confidence, chosen(codes, vote))
    step(
        "risk-coverage and calibration with intervals",
        lambda: [with_interval(statistic, groups) for statistic in (risk_area, calibration_error)],
    )

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    machine = (
        f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the end, Python "
        f"{platform.python_version()}, numpy {np.__version__}"
    )
    verdict = "within" if total <= SECONDS and peak <= GIGABYTES else "OVER"
    lines += [
        f"{total:7.2f} s  in all, peak memory {peak:.2f} GB: {verdict} the limits of {SECONDS} s and {GIGABYTES} GB"
    ]
    head = [
        f"$ python {' '.join(sys.argv)}",
        f"{codes.size:,} verdicts ({given.images:,} images x {given.answers} answers), {machine}",
    ]
    print(lines[-1])
    if given.out:
        given.out.write_text("\n".join([*head, *lines, ""]), encoding="utf-8")


main()
