"""The list of notebooks and what they write, and modules that somebody edited by hand."""

import shutil
from pathlib import Path

import pytest
from miniature import PARAMETERS, notebook, project
from refusal import message

from speciarl.compendium.notebook import check_generated
from speciarl.compendium.paper import ManifestEntry, entries_of, fill, graph, passages, read_manifest, stems_in
from speciarl.compendium.profile import Method, load_profile

ROOT = Path(__file__).resolve().parents[1]


def test_manifest_and_notebooks_must_agree(tmp_path):
    root = project(tmp_path / "mini")
    notebook(root / "nbs/paper/3_more.ipynb", PARAMETERS)
    assert message(read_manifest, root) == "3_more.ipynb is in nbs/paper but not in paper/manifest.yaml; mend the list"
    (root / "nbs/paper/3_more.ipynb").unlink()
    (root / "nbs/paper/1_count.ipynb").unlink()
    assert message(read_manifest, root) == "1_count.ipynb is in paper/manifest.yaml but not in nbs/paper; mend the list"
    for broken in ("- 1_count\n", "notebooks: {1_count: {figurs: [a]}}\n"):
        (root / "paper/manifest.yaml").write_text(broken)
        assert message(read_manifest, root).startswith(
            f"{root / 'paper/manifest.yaml'} is not a manifest: expected `notebooks:`, and for each lists of "
            "figures, tables, values, needs and inputs ("
        )


def test_a_file_has_one_maker_and_inputs_no_circle():
    one, two = (
        ManifestEntry("1_a", values=("a",)),
        ManifestEntry("2_b", tables=("b",), inputs=("paper/tables/{profile}/a.values.json", "paper/judges")),
    )
    assert graph([one, two], "laptop") == {"1_a": set(), "2_b": {"1_a"}}
    assert (
        message(graph, [one, two, ManifestEntry("3_c", tables=("b",))], "smoke")
        == "paper/tables/smoke/b.csv is listed for 2_b and for 3_c in paper/manifest.yaml; a file has one maker"
    )
    back = one._replace(inputs=("paper/tables/smoke/b.md",))
    assert (
        message(graph, [back, two], "smoke") == "the inputs in paper/manifest.yaml run in a circle: 1_a -> 2_b -> 1_a"
    )


def test_a_notebook_whose_group_a_profile_lacks_is_left_out():
    entries = [
        ManifestEntry("1_a", needs=("zero-shot", "main")),
        ManifestEntry("2_b", needs=("zero-shot", "photographs")),
        ManifestEntry("3_c"),
    ]
    paper = load_profile("paper")
    assert [entry.name for entry in entries_of(entries, paper)] == ["1_a", "3_c"]
    with_some = paper.model_copy(update={"methods": {**paper.methods, "photo": Method(group="photographs")}})
    assert entries_of(entries, with_some) == entries


TEXT = "One {{a.x}}.\n\n<!-- only photographs -->\n\nTwo {{photographs.x}}.\n\n<!-- end -->\n\nThree.\n"


def test_a_passage_is_kept_where_its_results_were_written(tmp_path):
    assert "Two" in passages(TEXT, {"photographs"}) and "Two" not in passages(TEXT, {"a"})
    assert "<!--" not in passages(TEXT, ()) and passages(passages(TEXT, ()), ()) == passages(TEXT, ())
    for written in ({"photographs"}, set()):
        assert passages(TEXT, written).splitlines().index("Three.") == TEXT.splitlines().index("Three.")
    assert fill(passages(TEXT, ()), {"a.x": 1}, tmp_path).count("One 1.") == 1
    for name in ("photographs.values.json", "plane.md", "notes.txt"):
        (tmp_path / name).write_text("{}")
    assert stems_in(tmp_path) == {"photographs", "plane"} and stems_in(tmp_path / "none") == set()


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a\n<!-- only x -->\nb\n", "line 2 of the paper: a passage runs from <!-- only STEM --> to <!-- end -->"),
        ("a\n<!-- end -->\n", "line 2 of the paper: a passage runs from <!-- only STEM --> to <!-- end -->"),
        ("<!-- only x -->\nb <!-- end -->\n", "line 1 of the paper: a passage runs from <!-- only STEM --> to"),
        ("<!-- only x -->\n<!-- only y -->\n<!-- end -->\n", "line 1 of the paper begins a passage that does not end"),
    ],
)
def test_passages_that_do_not_end(text, expected):
    for written in ({"x", "y"}, set()):
        assert message(passages, text, written).startswith(expected)


@pytest.fixture
def package(tmp_path):
    for name in (
        "nbs/1_core/1_scale.ipynb",
        "nbs/1_core/2_files.ipynb",
        "speciarl/core/scale.py",
        "speciarl/core/files.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("fallback_to_soft=False", "fallback_to_soft=True"),
        lambda text: text + "\nmore = 1\n",
        lambda text: text.replace("from .scale import UserError", ""),
    ],
)
def test_a_module_edited_by_hand_is_refused(package, edit):
    check_generated(package)
    module = package / "speciarl/core/files.py"
    module.write_text(edit(module.read_text()))
    assert (
        message(check_generated, package)
        == "speciarl/core/files.py is not what nbs/1_core/2_files.ipynb exports: put your edit into the notebook and "
        "run nbdev_export"
    )


def test_a_notebook_that_was_not_exported_is_refused(package):
    path = package / "nbs/1_core/1_scale.ipynb"
    path.write_text(path.read_text().replace("class UserError", "class UserFault"))
    assert message(check_generated, package).startswith(
        "speciarl/core/scale.py is not what nbs/1_core/1_scale.ipynb exports"
    )
    (package / "speciarl/core/scale.py").unlink()
    assert message(check_generated, package).startswith(
        "speciarl/core/scale.py is not what nbs/1_core/1_scale.ipynb exports"
    )


def test_blank_lines_and_cell_marks_do_not_count(package):
    module = package / "speciarl/core/files.py"
    module.write_text(module.read_text().replace("\n\n\n", "\n\n") + "\n\n")
    check_generated(package)
