"The notebooks as web pages: every link between chapters leads somewhere, pictures are inside."

import re
import shutil
from pathlib import Path

import pytest
from make_html import ROOT, linked, make, page


@pytest.mark.parametrize(
    "text, expected",
    [
        ("[a](01_labels.ipynb)", "[a](01_labels.html)"),
        ("[a](paper/2_judge.ipynb#Levels)", "[a](paper/2_judge.html#Levels)"),
        ("[a](https://x.org/a.ipynb)", "[a](https://x.org/a.ipynb)"),
        ("a.ipynb", "a.ipynb"),
    ],
)
def test_links_lead_to_pages(text, expected):
    assert linked(text) == expected


def test_the_contents_link_to_pages_that_exist():
    html = page(ROOT / "nbs" / "index.ipynb")
    links = [link for link in re.findall(r'href="([^"#:]+\.html)', html)]
    assert len(links) > 6 and all((ROOT / "nbs" / link).with_suffix(".ipynb").exists() for link in links)
    assert 'src="data:image/png;base64' in html, "the figure is inside the page"


def test_pages_lie_as_the_notebooks_do(tmp_path):
    (tmp_path / "nbs" / "paper").mkdir(parents=True)
    shutil.copytree(
        ROOT / "nbs" / "7_training",
        tmp_path / "nbs" / "7_training",
        ignore=lambda folder, names: [name for name in names if name != "1_rules.ipynb"],
    )
    shutil.copy(ROOT / "nbs" / "paper" / "3_training.ipynb", tmp_path / "nbs" / "paper")
    pages = make(tmp_path / "html", tmp_path)
    assert [path.relative_to(tmp_path / "html").as_posix() for path in pages] == [
        "7_training/1_rules.html",
        "paper/3_training.html",
    ]
    assert 'href="../index.html"' in pages[1].read_text() and 'href="../index.html"' in pages[0].read_text()
    assert not any("google.colab" in path.read_text() for path in pages), "a page is read, not run"
