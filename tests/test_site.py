"""What the documentation site is made of: pages that are read, a table of contents with every chapter, the public
face with its sources."""

import re
from pathlib import Path

import make_site
import nbformat
import pytest
from make_links import FIRST, LIBRARY, NBS, PAPER, module_of

import speciarl


@pytest.mark.parametrize("path", FIRST + LIBRARY + PAPER, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_page_is_read_and_not_run(path):
    text = "\n".join(cell.source for cell in make_site.page(path).cells)
    assert "google.colab" not in text and not re.search(r"^#\|", text, re.MULTILINE)
    assert re.search(r"^# \S", text, re.MULTILINE), "a page has a title"


def test_the_contents_name_every_chapter():
    text = make_site.contents()
    assert all(f"\n{path.parent.name}/{path.stem}\n" in text for path in LIBRARY)
    first = "\n".join(path.relative_to(NBS).with_suffix("").as_posix() for path in FIRST)
    assert f"\nindex\n{first}\nhouse\n" in text
    assert all(f":caption: {module_of(path).split('.')[0]}\n" in text for path in LIBRARY)


def test_the_reference_is_the_public_face():
    text = make_site.reference()
    assert len(re.findall(r"^\.\. auto\w+:: speciarl\.", text, re.MULTILINE)) == len(speciarl.__all__)
    assert ".. autoclass:: speciarl.judges.tree.TreeJudge" in text


@pytest.mark.parametrize("path", FIRST + LIBRARY + PAPER, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_link_to_a_file_leads_somewhere(path):
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#\s]+\.\w+)(?:#[^)]*)?\)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_command_line_tells_every_command():
    text = make_site.command_line()
    assert all(
        f"## speciarl {name}\n" in text for name in ("judge", "score", "evaluate", "train", "reproduce", "store export")
    )


def test_a_site_leaves_nothing_beside_it(tmp_path, monkeypatch):
    "Sphinx's notebooks write pictures beside the pages, which are no part of a checkout."

    def sphinx(command, check):
        pages = Path(command[-1])
        for path in (pages / "index.html", pages.parent / "jupyter_execute" / "picture.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("made")

    monkeypatch.setattr(make_site.subprocess, "run", sphinx)
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "old.html").write_text("of a chapter that is gone")
    assert make_site.build(tmp_path / "html") == tmp_path / "html"
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["html", "html/index.html"]


def test_what_goes_wrong_is_told_in_the_words_of_the_package():
    "Each message of the page stands in the source, but for what changes from case to case."
    source = ""
    for path in sorted(Path(speciarl.__file__).parent.rglob("*.py")):
        source += re.sub(r'"\s*\n\s*f?"', "", path.read_text(encoding="utf-8"))  # a text over several lines
    page = nbformat.read(make_site.NBS / "trouble.ipynb", as_version=4)
    told = [row for cell in page.cells for row in re.findall(r"^\| `([^`]+)` \|", cell.source, re.MULTILINE)]
    assert len(told) > 30
    for message in told:
        parts = [part.strip() for part in message.split("…") if len(part.strip()) > 3]
        assert parts and [part for part in parts if part not in source] == [], message
