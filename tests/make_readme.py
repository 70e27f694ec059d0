"""README.md from nbs/index.ipynb: prose as it is, Markdown outputs in place of code, links relative to the
repository. Run as a script to write it."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTE = "<!-- Made from nbs/index.ipynb by tests/make_readme.py; edit the notebook. -->\n"


def relocated(text: str) -> str:
    "Links that are right in nbs/ made right in the folder above it."
    return re.sub(
        r"\]\((?!https?:|#)([^)]+)\)", lambda m: f"]({m[1][3:]})" if m[1].startswith("../") else f"](nbs/{m[1]})", text
    )


def readme(index: Path = ROOT / "nbs" / "index.ipynb") -> str:
    "The text of the README."
    parts = []
    for cell in json.loads(index.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            parts.append("".join(cell["source"]))
        for output in cell.get("outputs", []):
            parts.append("".join(output.get("data", {}).get("text/markdown", [])))
    return relocated(NOTE + "\n" + "\n\n".join(part.strip() for part in parts if part.strip()) + "\n")


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
    print("wrote README.md")
