"""How many pairs per second the tree judge decides, how long `speciarl judge` takes on 100,000 pairs, and what
importing the package costs.

    python benchmarks/judge_speed.py [--pairs N] [--repeats N] [--out FILE]

The first figures are pairs per second of processor time in this process, on one core (best and median of the repeats;
the trees are loaded, nothing is remembered). The others are the wall time of a fresh process (median of the repeats),
start of Python included. Nothing is written unless --out names a file for the printed text.
"""

import argparse
import csv
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from speciarl.data.trees import load_trees
from speciarl.judges.tree import TreeJudge

LIMIT_REPEATED, LIMIT_DISTINCT = 200_000, 20_000  # pairs per second
SENTENCES = (
    "{}",
    "a photo of a {}.",
    "The image shows a {} sitting on a branch in the garden.",
    "a small white {} standing in the grass near the water",
    "{} with a long tail and a yellow head",
    "The {} in the picture is flying over the ocean on a sunny day.",
    "{} number {}",
    "This appears to be a {}, photographed from the side.",
)
LIMIT_JUDGE, LIMIT_IMPORT = 5.0, 0.3  # seconds
WORDS = (
    "small white large brown spotted juvenile perched old flying striped wooden mixed unknown blurred near far".split()
)


def pairs(n: int, distinct: float, seed: int = 0) -> list[tuple[str, str, str]]:
    """n rows (data set, label, answer): answers are names of the label's tree; a share `distinct` of them is a
    phrase found once."""
    dice, trees = random.Random(seed), load_trees()
    labels = [(name, label) for name, tree in trees.items() for label in tree.classes()]
    names = {name: [node.name for node in tree.nodes] for name, tree in trees.items()}
    rows = []
    for i in range(n):
        dataset, label = dice.choice(labels)
        answer = dice.choice(names[dataset])
        rows.append((dataset, label, f"{dice.choice(WORDS)} {answer} {i}" if dice.random() < distinct else answer))
    return rows


def sentences(n: int, seed: int = 0) -> tuple[list[tuple[str, str]], list[str]]:
    """n distinct pairs (label, answer) and their data sets: names of the label's tree, mostly in sentences; one in
    eight with a word that is found only once."""
    dice, trees = random.Random(seed), load_trees()
    labels = [(name, label) for name, tree in trees.items() for label in tree.classes()]
    rows = {}
    while len(rows) < n:
        dataset, label = dice.choice(labels)
        rows[dataset, label, dice.choice(SENTENCES).format(dice.choice(trees[dataset].nodes).name, len(rows))] = None
    return [(label, answer) for _, label, answer in rows], [dataset for dataset, *_ in rows]


def names(n: int, seed: int = 0) -> tuple[list[tuple[str, str]], list[str]]:
    "n distinct pairs (label, answer) and their data sets: names of the label's tree, as they are."
    dice, trees = random.Random(seed), load_trees()
    labels, rows = [(name, label) for name, tree in trees.items() for label in tree.classes()], {}
    while len(rows) < n:
        dataset, label = dice.choice(labels)
        rows[dataset, label, dice.choice(trees[dataset].nodes).name] = None
    return [(label, answer) for _, label, answer in rows], [dataset for dataset, *_ in rows]


def rates(n: int, repeats: int) -> list[str]:
    """Pairs per second of processor time: distinct pairs of names and in sentences, and the same pairs again ten
    times over."""
    found, trees = {"distinct pairs, names": [], "distinct pairs, sentences": [], "repeated pairs": []}, load_trees()
    TreeJudge(trees)(*(part[: n // 10] for part in sentences(n)))  # the tables of the trees are built on first use
    for _ in range(repeats):
        for title, (rows, datasets) in (
            ("distinct pairs, names", names(n)),
            ("distinct pairs, sentences", sentences(n)),
        ):
            judge = TreeJudge(trees)
            start = time.process_time()
            judge(rows, datasets)
            found[title].append(n / (time.process_time() - start))
        start = time.process_time()
        judge(rows * 10, datasets * 10)
        found["repeated pairs"].append(10 * n / (time.process_time() - start))
    kinds = [
        (title, rates, LIMIT_REPEATED if title == "repeated pairs" else LIMIT_DISTINCT)
        for title, rates in found.items()
    ]
    return [
        f"  {title:42}best {max(found):11,.0f} /s  median {statistics.median(found):11,.0f} /s  at least {limit:,} "
        "wanted"
        for title, found, limit in kinds
    ]


def seconds(repeats: int, *arguments: str) -> float:
    "Median wall time of `python *arguments`."
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def judge_seconds(folder: Path, n: int, distinct: float, with_dataset: bool, repeats: int) -> float:
    "Wall time of `speciarl judge` on a table of `n` rows."
    table = folder / "pairs.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sample_id", *["dataset"] * with_dataset, "label", "answer", "rollout"])
        writer.writerows([i, *row[not with_dataset :], 0] for i, row in enumerate(pairs(n, distinct)))
    return seconds(
        repeats,
        "-c",
        "from speciarl.cli import main; main()",
        "judge",
        str(table),
        "--out",
        str(folder / "verdicts.csv"),
        "--force",
    )


def loads(module: str, name: str) -> bool:
    "Whether importing `name` loads `module`."
    code = f"import sys, {name}; sys.exit({module!r} in sys.modules)"
    return subprocess.run([sys.executable, "-c", code]).returncode != 0


def report(n: int, repeats: int) -> list[str]:
    lines = [
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; medians of {repeats}",
        "",
        "tree judge in this process, one core",
        *rates(60_000, repeats),
        "",
        f"speciarl judge, {n:,} pairs (limit {LIMIT_JUDGE:g} s for 100,000)",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for title, distinct, with_dataset in (
            ("names of the trees, data set given", 0.0, True),
            ("names of the trees, all trees searched", 0.0, False),
            ("half of the answers found only once", 0.5, True),
            ("every answer found only once", 1.0, True),
        ):
            wall = judge_seconds(Path(folder), n, distinct, with_dataset, repeats)
            lines.append(
                f"  {title:42}{wall:6.2f} s  {n / wall:9,.0f} pairs/s  {wall / (LIMIT_JUDGE * n / 100_000):5.2f} of "
                "the limit"
            )
    bare = seconds(repeats, "-c", "pass")
    lines += ["", f"import (limit {LIMIT_IMPORT:g} s above bare Python, which starts in {bare:.3f} s)"]
    for name in (
        "speciarl",
        "speciarl.cli",
        "speciarl.core.scale",
        "speciarl.judges.tree",
        "speciarl.metrics.rates",
        "speciarl.training.rules",
    ):
        wall = seconds(repeats, "-c", f"import {name}")
        lines.append(
            f"  {name:42}{wall - bare:6.3f} s  {wall / bare:9.1f} x bare  "
            f"{'loads torch' if loads('torch', name) else 'without torch'}"
        )
    wall = seconds(repeats, "-c", "from speciarl.cli import main; main()", "--help")
    return [*lines, f"  {'speciarl --help':42}{wall - bare:6.3f} s  {wall / bare:9.1f} x bare"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = (
        "\n".join(
            [
                f"$ python benchmarks/judge_speed.py --pairs {options.pairs} --repeats {options.repeats}",
                *report(options.pairs, options.repeats),
            ]
        )
        + "\n"
    )
    print(text, end="")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
