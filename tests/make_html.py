"HTML of every notebook, with the outputs they are saved with, in html/: chapters link to chapters, pictures are inside the pages. Run as a script: make_html.py [FOLDER]."

import base64
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent


def linked(text: str) -> str:
    "Links to notebooks of this project made links to their pages."
    return re.sub(r"\]\((?!https?:)([^)#]+)\.ipynb(#[^)]*)?\)", r"](\1.html\2)", text)


def pictured(text: str, folder: Path) -> str:
    "PNG files that the text shows, put into it (nbconvert would only take those below the notebook's folder)."
    return re.sub(
        r"\]\(([^):]+\.png)\)",
        lambda found: f"](data:image/png;base64,{base64.b64encode((folder / found[1]).read_bytes()).decode()})",
        text,
    )


def page(path: Path) -> str:
    "The page of one notebook, without the cell that only Colab needs."
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if '"google.colab" in' not in cell.source]
    for cell in notebook.cells:
        cell.source = pictured(linked(cell.source), path.parent) if cell.cell_type == "markdown" else cell.source
    title = re.search(
        r"^# (.+)$", "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown"), re.MULTILINE
    )
    resources = {"metadata": {"name": title[1] if title else path.stem, "path": str(path.parent)}}
    return HTMLExporter().from_notebook_node(notebook, resources=resources)[0]


def make(folder: Path, root: Path = ROOT) -> list[Path]:
    "Write the pages of all notebooks below `root`/nbs to `folder`; returns their paths."
    written = []
    for path in sorted(p for p in (root / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts):
        out = folder / path.relative_to(root / "nbs").with_suffix(".html")
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(path), encoding="utf-8")
        written.append(out)
    return written


if __name__ == "__main__":
    pages = make(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "html")
    print(f"wrote {len(pages)} pages; begin with {pages[0].parent / 'index.html'}")
