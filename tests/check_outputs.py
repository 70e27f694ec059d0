"""What `speciarl reproduce` must have left behind. Run by CI; not a pytest module.

python tests/check_outputs.py smoke                   every output is there, whole, and says where it comes from
python tests/check_outputs.py smoke --save STATE      the same, and notes what there is in the file STATE
python tests/check_outputs.py smoke --same STATE      the same, and nothing was computed since or came out otherwise
"""

import argparse
import csv
import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FORMATS = {"figures": ("pdf", "png"), "paper/tables": ("csv", "md", "tex")}


def is_values(path: Path) -> bool:
    "True for the files of named numbers that sentences of the paper quote; they are no tables and have no formats."
    return path.name.endswith(".values.json")


def records(profile: str) -> dict[Path, dict]:
    "Stem to record, for every figure and table of the profile."
    found = [
        path for folder in FORMATS for path in sorted((ROOT / folder / profile).glob("*.json")) if not is_values(path)
    ]
    return {path.with_suffix(""): json.loads(path.read_text(encoding="utf-8")) for path in found}


def problems(profile: str) -> list[str]:
    "One line for everything that is missing or wrong."
    found = []
    for folder, formats in FORMATS.items():
        stems = {path.stem for path in (ROOT / folder / profile).glob("*.*") if not is_values(path)}
        if not stems:
            found.append(f"{folder}/{profile} is empty")
        wanted = [
            ROOT / folder / profile / f"{stem}.{suffix}" for stem in sorted(stems) for suffix in (*formats, "json")
        ]
        found += [
            f"{path.relative_to(ROOT)} is missing or empty"
            for path in wanted
            if not path.is_file() or not path.stat().st_size
        ]
    found += [
        f"{stem.relative_to(ROOT)} is of profile {record['profile']}"
        for stem, record in records(profile).items()
        if record["profile"] != profile
    ]
    drawn = {record["notebook"] for record in records(profile).values()}
    notebooks = {path.stem for path in (ROOT / "nbs" / "paper").glob("*.ipynb")}
    found += [f"no output comes from nbs/paper/{name}.ipynb" for name in sorted(notebooks - drawn)]
    kept = ROOT / "paper" / "notebooks" / profile
    found += [
        f"{name}.{end} is not in paper/notebooks/{profile}"
        for name in sorted(notebooks)
        for end in ("html", "made.json")
        if not (kept / f"{name}.{end}").is_file()
    ]
    found += [
        f"{stem.relative_to(ROOT)}.json does not say its {part}"
        for stem, record in records(profile).items()
        for part in ("id", "notebook", "profile")
        if not record.get(part)
    ]
    if not any(path.stat().st_size for path in papers()):
        found.append("there is no PDF of the paper in paper/build")
    return found + headline_problems(profile)


def papers() -> list[Path]:
    return sorted((ROOT / "paper" / "build").rglob("*.pdf"))


def headline_problems(profile: str) -> list[str]:
    """The tables of S, C and HM that 4_benchmark writes have rows, and in these columns nothing but numbers from 0
    to 1; S has none where no answer is correct."""
    found, tables = [], 0
    for stem in [
        stem
        for stem, record in records(profile).items()
        if record["notebook"] == "4_benchmark" and stem.with_suffix(".csv").exists()
    ]:
        with open(stem.with_suffix(".csv"), encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
        if not {"S", "C", "HM"} <= set(reader.fieldnames or ()):
            continue
        tables += bool(rows)
        found += [
            f"{stem.name}.csv, row {n}: {name} is {row[name]!r}"
            for n, row in enumerate(rows, 2)
            for name in ("S", "C", "HM")
            if not is_share(row[name]) and not (name == "S" and row["S"] == "" and row["C"] == "0")
        ]
    return found if tables else [*found, f"4_benchmark wrote no table of S, C and HM with rows for profile {profile}"]


def is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1  # False for nan
    except ValueError:
        return False


def state(profile: str) -> dict[str, str]:
    "Hashes of all outputs, and when each artefact was finished."
    outputs = [path for folder in FORMATS for path in sorted((ROOT / folder / profile).iterdir())]
    artefacts = sorted((ROOT / ".speciarl" / "artefacts").glob("*/record.json"))
    return {path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in outputs} | {
        path.parent.relative_to(ROOT).as_posix(): str(path.stat().st_mtime_ns) for path in artefacts
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--same", type=Path)
    options = parser.parse_args()
    found = problems(options.profile)
    if not found and options.save:
        options.save.write_text(json.dumps(state(options.profile)), encoding="utf-8")
    if not found and options.same:
        before, now = json.loads(options.same.read_text(encoding="utf-8")), state(options.profile)
        found += [
            f"{name} was computed again or came out otherwise"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    if not found:
        print(
            f"{len(records(options.profile))} figures and tables of profile {options.profile}, and the paper: all "
            "there and whole"
        )
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
