"Miniature projects for the tests of the engine: notebooks that run in a moment."

from pathlib import Path

import nbformat

PARAMETERS = 'profile = "smoke"'
WRITE = """import json, pathlib
folder = pathlib.Path("../../paper/tables") / profile
folder.mkdir(parents=True, exist_ok=True)
(folder / "{stem}.values.json").write_text(json.dumps({values}))"""


def notebook(path: Path, *sources: str, tags=(("parameters",),), kernelspec: bool = True) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for cell, names in zip(cells, tags):
        cell.metadata["tags"] = list(names)
    metadata = (
        {"kernelspec": {"name": "python3", "language": "python", "display_name": "python3"}} if kernelspec else {}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


def project(root: Path) -> Path:
    "Two notebooks that each write a number, and a text that quotes both."
    notebook(root / "nbs/paper/1_count.ipynb", PARAMETERS, WRITE.format(stem="count", values={"plates": 48}))
    notebook(root / "nbs/paper/2_share.ipynb", PARAMETERS, WRITE.format(stem="share", values={"value": -0.5}))
    (root / "paper").mkdir()
    (root / "paper/manifest.yaml").write_text(
        "notebooks:\n  1_count: {values: [count]}\n  2_share: {values: [share]}\n"
    )
    (root / "paper/paper.md").write_text(
        "# Mini\n\n{{count.plates}} plates, {{share.value:.1f}}, profile {{profile}}.\n"
    )
    return root
