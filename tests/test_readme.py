"The README is the index notebook, and what it shows is what is committed."

import re

from make_readme import ROOT, readme, relocated

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_is_in_step_with_the_index_notebook():
    assert readme() == README, "run python tests/make_readme.py"


def test_the_first_screen_has_the_figure_and_both_commands():
    first = "\n".join(README.splitlines()[:20])
    assert "make reproduce" in first and "make test" in first and "figures/laptop/photo_plane.png" in first


def test_the_tables_are_the_committed_ones_photographs_first():
    tables = ROOT / "paper" / "tables" / "laptop"
    found = [
        README.find((tables / f"{stem}.md").read_text(encoding="utf-8").strip())
        for stem in ("photographs", "benchmark")
    ]
    assert -1 < found[0] < found[1]


def test_every_link_into_the_repository_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_links_are_moved_up_one_folder():
    assert (
        relocated("[a](../figures/x.png) [b](1_core/1_scale.ipynb) [c](https://x.org)")
        == "[a](figures/x.png) [b](nbs/1_core/1_scale.ipynb) [c](https://x.org)"
    )
