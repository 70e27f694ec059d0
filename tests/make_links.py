"""The line of links under the title of every notebook: contents, the chapters before and after, and those whose
modules it uses. Run as a script to write it into the notebooks."""

import ast
import os
import re
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
START = "[Contents]("


def in_order(path: Path) -> list[tuple[int, str]]:
    "The sort key of a chapter: by the numbers of its room and of itself, so that 10 comes after 9."
    return [(int(number), rest) for number, rest in re.findall(r"(\d+)([^/]*)", path.relative_to(NBS).as_posix())]


LIBRARY = sorted((path for path in NBS.glob("[0-9]*/*.ipynb")), key=in_order)
PAPER = sorted((NBS / "paper").glob("*.ipynb"))
FIRST = [NBS / "tutorial.ipynb", *sorted((NBS / "start").glob("*.ipynb"))]  # to begin with; they export nothing
CHAPTERS = [*LIBRARY, *PAPER]


def module_of(path: Path) -> str:
    """The module of the package that a library chapter exports, by its place: `judges.tree` for
    nbs/3_judges/8_tree.ipynb."""
    return f"{path.parent.name.split('_', 1)[1]}.{path.stem.split('_', 1)[1]}"


MODULES = {module_of(path): path for path in LIBRARY}


def imports_of(tree: ast.AST) -> set[str]:
    "The modules of speciarl, as `judges.tree`, that a piece of code imports, anywhere in it."
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    names = {name.removeprefix("speciarl.") for name in found if name.startswith("speciarl.")}
    return {name for name in names if name in MODULES}


def imported(path: Path) -> set[str]:
    "The modules of speciarl that a notebook's cells import."
    found = set()
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            found |= imports_of(ast.parse(TransformerManager().transform_cell(cell.source)))
    return found


def link(path: Path, here: Path) -> str:
    "A link from a chapter to another."
    words = path.stem.replace("_", " ") if path in PAPER else module_of(path)
    return f"[{words}]({os.path.relpath(path, here.parent)})"


def links(path: Path) -> str:
    "The line of a chapter."
    at = CHAPTERS.index(path)
    uses = [MODULES[name] for name in imported(path) if MODULES[name] != path]
    parts = [f"{START}../index.ipynb)"]
    if at > 0:
        parts.append(f"before: {link(CHAPTERS[at - 1], path)}")
    if at + 1 < len(CHAPTERS):
        parts.append(f"next: {link(CHAPTERS[at + 1], path)}")
    if uses:
        parts.append("uses: " + ", ".join(link(other, path) for other in sorted(uses, key=in_order)))
    return " · ".join(parts)


def told(source: str) -> str | None:
    "The line in a title cell; None if there is none yet."
    return next((line for line in source.split("\n") if line.startswith(START)), None)


def title_cell(notebook):
    "The first cell of prose."
    return next(cell for cell in notebook.cells if cell.cell_type == "markdown")


if __name__ == "__main__":
    for path in CHAPTERS:
        notebook = nbformat.read(path, as_version=4)
        cell = title_cell(notebook)
        cell.source = re.sub(rf"\n\n{re.escape(START)}.*", "", cell.source) + "\n\n" + links(path)
        nbformat.write(notebook, path)
    print(f"linked {len(CHAPTERS)} chapters")
