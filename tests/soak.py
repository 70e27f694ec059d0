"""Kill a reproduction with signal 9 at random moments, start it again, and compare with one that was left alone. Run by
`make soak`; not a pytest module.

python tests/soak.py            50 kills
python tests/soak.py 5 --seed 1
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from miniature import PARAMETERS, WRITE, notebook

ARTEFACT = """import time
from speciarl.compendium.artefacts import ArtefactStore
def compute(folder):
    time.sleep(0.4)
    (folder / "x.txt").write_text("{name}")
for part in range(2):
    made = ArtefactStore("../../.speciarl/artefacts").make("slow", {{"name": "{name}", "part": part}}, compute)"""
FIGURE = """from pathlib import Path
import time
for kind in ("pdf", "png", "json"):
    Path("../../figures", profile, "{name}." + kind).write_text("{name} " + kind)
    time.sleep(0.1)"""


MOST = 6  # kills of one project; then it is left to end, however busy the machine


def build(root: Path) -> Path:
    """A project of three notebooks: two that compute artefacts and write numbers and a figure, and one that reads
    what the first wrote."""
    for number, name in enumerate("ab", 1):
        notebook(
            root / f"nbs/paper/{number}_{name}.ipynb",
            PARAMETERS,
            ARTEFACT.format(name=name),
            FIGURE.format(name=name),
            WRITE.format(stem=name, values={"n": number}),
        )
    notebook(
        root / "nbs/paper/3_c.ipynb",
        PARAMETERS,
        'import json\nfound = json.load(open(f"../../paper/tables/{profile}/a.values.json"))',
        WRITE.format(stem="c", values="found"),
    )
    (root / "paper").mkdir()
    (root / "paper/manifest.yaml").write_text(
        "notebooks:\n  1_a: {values: [a], figures: [a]}\n  2_b: {values: [b], figures: [b]}\n"
        "  3_c: {values: [c], inputs: ['paper/tables/{profile}/a.values.json']}\n"
    )
    (root / "paper/paper.md").write_text("# Mini\n\n{{a.n}}, {{b.n}} and {{c.n}}.\n")
    return root


def start(root: Path) -> subprocess.Popen:
    code = "import sys; from speciarl.compendium.reproduce import reproduce; reproduce('smoke', root=sys.argv[1])"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def results(root: Path) -> dict[str, bytes]:
    "Every output and what it holds."
    folders = ("figures", "paper/tables", "paper/build")
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for folder in folders
        for path in sorted((root / folder).rglob("*"))
        if path.is_file()
    }


def finished(root: Path) -> dict[str, bytes]:
    "The record of everything that is finished: doing it again would write another."
    own = root / ".speciarl"
    return {
        path.relative_to(own).as_posix(): path.read_bytes()
        for pattern in ("artefacts/*/record.json", "records/smoke/*.json")
        for path in sorted(own.glob(pattern))
        if not path.parent.name.startswith(".")
    }


def soak(folder: Path, kills: int, seed: int = 0, say=print) -> int:
    """Kill and start again `kills` times, on as many projects as that takes. Returns the kills that met something
    finished. Raises `AssertionError` at the first difference."""
    chance, begin = random.Random(seed), time.monotonic()
    whole = build(folder / "left alone")
    assert start(whole).wait() == 0
    length, done, met, number = time.monotonic() - begin, 0, 0, 0
    say(f"left alone: {len(results(whole))} files, {len(finished(whole))} things finished, {length:.1f} s")
    while done < kills:
        number += 1
        root, ended, here = build(folder / f"killed {number}"), False, 0
        while not ended:
            before, moment = finished(root), chance.uniform(0, length)
            run = start(root)
            try:
                _, error = run.communicate(timeout=moment if done < kills and here < MOST else None)
                assert run.returncode == 0, error
                ended = True
            except subprocess.TimeoutExpired:
                run.kill()
                run.communicate()
                done, here, met = done + 1, here + 1, met + bool(before)
            now = finished(root)
            again = sorted(name for name, record in before.items() if now.get(name) != record)
            assert not again, f"done again: {again}"
            say(
                f"project {number}: {'ended' if ended else f'kill {done} after {moment:4.1f} s'}; finished "
                f"{len(before)} -> {len(now)}"
            )
        assert results(root) == results(whole), (
            sorted(name for name in results(root).keys() ^ results(whole).keys()) or "other bytes"
        )
        assert not list((root / ".speciarl/views").glob("*/*")), "views are left"
        say(f"project {number}: the same {len(results(root))} files, byte by byte")
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak ü ") as folder:
        begin = time.monotonic()
        met = soak(Path(folder), options.kills, options.seed)
    print(
        f"{options.kills} kills ({met} when something was finished already) in {time.monotonic() - begin:.0f} s: the "
        "same bytes, and nothing finished was done again"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
