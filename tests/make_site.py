"""The documentation site, in html/ or the folder given: every notebook with the outputs it is saved with, the public
face as a reference with signatures and sources, the command line, and a search. `make docs` runs this; see nbs/site for
its few pages.
"""

import inspect
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import nbformat
import typer
from make_links import FIRST, LIBRARY, NBS, PAPER, ROOT
from typer.testing import CliRunner

import speciarl
from speciarl.cli import app as door


def page(path: Path) -> nbformat.NotebookNode:
    "A notebook as it is read: without cells that only nbdev or Colab need, and without nbdev's directives."
    notebook = nbformat.read(path, as_version=4)
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if re.match(r"#\|\s*(hide|default_exp)\b", cell.source) or '"google.colab" in' in cell.source:
                continue
            cell.source = re.sub(r"^#\|.*\n?", "", cell.source, flags=re.MULTILINE)
        cell.source = cell.source.replace("](../figures/", "](figures/")
        cells.append(cell)
    notebook.cells = cells
    return notebook


def contents() -> str:
    "The table of contents: the pages of nbs/site/contents.md, then the chapters room by room."
    parts = [(NBS / "site" / "contents.md").read_text(encoding="utf-8")]
    for folder in dict.fromkeys(path.parent for path in LIBRARY):
        room = folder.name.split("_", 1)[1]
        chapters = [f"{folder.name}/{path.stem}" for path in LIBRARY if path.parent == folder]
        parts.append("\n".join(["```{toctree}", f":caption: {room}", *chapters, "```"]))
    return "\n\n".join(parts) + "\n"


def reference() -> str:
    "The public face as directives for Sphinx, which takes signatures, docstrings and sources from the code."
    lines = [
        "# The public face",
        "",
        "What `import speciarl` gives. Everything else is in the rooms.",
        "",
        "```{eval-rst}",
    ]
    for name in speciarl.__all__:
        found = getattr(speciarl, name)
        kind = "autoclass" if inspect.isclass(found) else "autofunction" if callable(found) else "autodata"
        lines += [f".. {kind}:: {found.__module__}.{found.__qualname__}"]
        lines += ["   :members:", ""] if kind == "autoclass" else [""]
    return "\n".join([*lines, "```", ""])


def command_line() -> str:
    "The help of `speciarl` and of every command of it, as it is printed."
    runner = CliRunner()
    lines = ["# The command line", ""]

    def add(command: click.Command, words: tuple[str, ...]) -> None:
        told = runner.invoke(door.app, [*words, "--help"], prog_name="speciarl", env={"COLUMNS": "100", "TERM": "dumb"})
        lines.extend([f"## {' '.join(('speciarl', *words))}", "", "```text", told.stdout.strip(), "```", ""])
        for name, inner in getattr(command, "commands", {}).items():
            add(inner, (*words, name))

    add(typer.main.get_command(door.app), ())
    return "\n".join(lines)


def build(out: Path) -> Path:
    """Build the site in `out`; what was there goes. Raises `CalledProcessError` where Sphinx warns: a link that leads
    nowhere is an error."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "source", Path(folder) / "site" / "html"
        source.mkdir()
        for path in [*NBS.glob("*.ipynb"), *FIRST, *LIBRARY, *PAPER]:
            target = source / path.relative_to(NBS)
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(page(path), target)
        shutil.copytree(NBS / "images", source / "images")
        shutil.copytree(ROOT / "figures" / "laptop", source / "figures" / "laptop")
        shutil.copytree(NBS / "site", source / "site")
        (source / "contents.md").write_text(contents(), encoding="utf-8")
        (source / "site" / "contents.md").unlink()
        (source / "site" / "reference.md").write_text(reference(), encoding="utf-8")
        (source / "site" / "command_line.md").write_text(command_line(), encoding="utf-8")
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", source / "site", source, made]
        subprocess.run(command, check=True)  # myst-nb leaves pictures beside its output, so not in the checkout
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(made, out)
    return out


if __name__ == "__main__":
    site = build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "html")
    print(f"wrote {len(list(site.rglob('*.html')))} pages; begin with {site / 'index.html'}")
