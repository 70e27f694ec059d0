"""How many calls of a language model the cascade saves on the answers of the policies.

    python benchmarks/cascade_calls.py [--out benchmarks/results/cascade_calls.txt]

Reads the predictions that `speciarl reproduce` left in .speciarl/artefacts and asks the label trees about every
distinct pair; what they leave undecided is what a cascade would send to its second judge. The second judge here only
counts: no verdict is used.
"""

import argparse
import json
import sys
from pathlib import Path

from speciarl.judges.choose import CascadeJudge
from speciarl.judges.tree import TreeJudge
from speciarl.judges.verdict import Verdict

ROOT = Path(__file__).parent.parent


class Counter:
    identity = "counts only"

    def __call__(self, pairs, datasets=None, done=None):
        return [Verdict(None, "counted")] * len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    files = sorted((ROOT / ".speciarl" / "artefacts").glob("predictions-*/predictions.jsonl"))
    if not files:
        sys.exit("error: no predictions in .speciarl/artefacts: run speciarl reproduce --profile laptop first")
    rows = [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]
    asked = [row for row in rows if row["answer"]]
    cascade = CascadeJudge(TreeJudge(), Counter())
    cascade([(row["label"], row["answer"]) for row in asked], [row["dataset"] for row in asked])
    text = "\n".join(
        [
            f"$ python benchmarks/cascade_calls.py  ({len(files)} prediction files, {len(rows):,} answers, "
            f"{len(rows) - len(asked):,} without an answer tag)",
            cascade.summary(),
            "",
        ]
    )
    print(text, end="")
    if out:
        out.write_text(text, encoding="utf-8")


main()
