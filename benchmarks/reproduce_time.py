"""How long a reproduction takes from nothing, when nothing changed, and when the lines of all figures get another
width, which draws every notebook again; and how much memory its largest process needs.

    python benchmarks/reproduce_time.py [smoke|laptop]

Works in a fresh clone of the checkout's last commit in a temporary folder, so nothing computed before is used and
nothing here is touched.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def timed(command: list[str], cwd: Path) -> float:
    "Wall seconds of a command with the package that lies in `cwd`; its output is shown only if it fails."
    started = time.perf_counter()
    here = os.environ | {"PYTHONPATH": str(cwd)}
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=here)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.perf_counter() - started


def main(profile: str = "smoke") -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        timed(["git", "clone", "--quiet", str(ROOT), str(clone)], ROOT)
        command = [str(Path(sys.executable).parent / "speciarl"), "reproduce", "--profile", profile]
        first, second = timed(command, clone), timed(command, clone)
        style = clone / "speciarl" / "assets" / "speciarl.mplstyle"
        text = style.read_text(encoding="utf-8")
        style.write_text(re.sub(r"lines.linewidth: .*", "lines.linewidth: 1.5", text), encoding="utf-8")
        third = timed(command, clone)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(
        f"profile {profile}: from nothing {first:.0f} s, nothing changed {second:.1f} s (ratio "
        f"{first / second:.0f}), a changed plot style {third:.0f} s, largest process {peak:.2f} GB"
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])
