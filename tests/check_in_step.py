"""Notebooks are clean and the package is what they export: cleaning and exporting again changes nothing. Run by
`make test`."""

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def state() -> dict[str, str]:
    "Path to SHA-256 for every notebook and every file of the package nbdev writes."
    files = [
        *ROOT.glob("nbs/**/*.ipynb"),
        *ROOT.glob("speciarl/**/*.py"),
        ROOT / "pyproject.toml",
        ROOT / "settings.ini",
    ]
    files = [f for f in files if ".ipynb_checkpoints" not in f.parts]
    return {f.relative_to(ROOT).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def main() -> int:
    before = state()
    for command in ("nbdev_clean", "nbdev_export"):
        subprocess.run([Path(sys.executable).parent / command], cwd=ROOT, check=True)
    after = state()
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        print(
            f"error: nbdev_clean and nbdev_export changed {', '.join(changed)}: review and commit them", file=sys.stderr
        )
        return 1
    print(f"{len(after)} files in step: nbdev_clean and nbdev_export change nothing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
