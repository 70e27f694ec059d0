"The line of links under the title of every notebook: contents, the chapters before and after, and those whose modules it uses. Run as a script to write it into the notebooks."
import ast
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
LIBRARY, PAPER = sorted(NBS.glob("[0-9]*.ipynb")), sorted((NBS / "paper").glob("*.ipynb"))
CHAPTERS = [*LIBRARY, *PAPER]
MODULES = {path.stem.split("_", 1)[1]: path for path in LIBRARY}
START = "[Contents]("


def link(path: Path, here: Path) -> str:
    "A link from a chapter to another."
    target = path.relative_to(here.parent).as_posix() if path.is_relative_to(here.parent) else f"../{path.name}"
    return f"[{path.stem.replace('_', ' ')}]({target})"


def notebook_imports(path: Path, package: str = "speciarl") -> list[str]:
    "The modules of the package that a notebook's cells import themselves, in the spellings `from speciarl.scale import x` and `import speciarl.scale`."
    found = set()
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        plain = re.sub(r"^(\s*)[%!?].*$", r"\1pass", cell.source, flags=re.MULTILINE)  # what only IPython understands
        for node in ast.walk(ast.parse(plain)):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module] if node.module != package else [f"{package}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            found.update(name.split(".")[1] for name in names if name.startswith(f"{package}."))
    return sorted(found)


def links(path: Path) -> str:
    "The line of a chapter."
    at = CHAPTERS.index(path)
    before, after = CHAPTERS[at - 1] if at else None, CHAPTERS[at + 1] if at + 1 < len(CHAPTERS) else None
    uses = [MODULES[name] for name in notebook_imports(path) if name in MODULES and MODULES[name] != path]
    parts = [f"{START}{'../' * (path.parent != NBS)}index.ipynb)"]
    parts += [f"{word}: {link(other, path)}" for word, other in (("before", before), ("next", after)) if other]
    parts += ["uses: " + ", ".join(link(other, path) for other in sorted(uses))] if uses else []
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
