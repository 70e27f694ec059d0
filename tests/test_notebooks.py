"""How notebooks are written, and five traps of nbdev with papermill: each is set up in miniature, and its mend is
tried.

The traps: (1) `nbdev_clean` deletes the tag by which papermill finds parameters; (2) a notebook whose kernel died is
saved as if complete; (3) `nbdev_test` and papermill skip different cells; (4) papermill does not run a notebook without
kernel information; (5) an unknown parameter is only a warning.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from make_links import FIRST, LIBRARY, MODULES, PAPER, ROOT, imports_of, in_order, links, module_of, title_cell, told

from speciarl.compendium.notebook import run_notebook
from speciarl.core.scale import UserError

ROOMS = ["core", "data", "judges", "policy", "metrics", "report", "training", "fine_r1", "compendium", "cli"]

library = pytest.mark.parametrize("path", LIBRARY, ids=module_of)
every = pytest.mark.parametrize("path", LIBRARY + PAPER, ids=lambda path: f"{path.parent.name}/{path.stem}")
all_of_them = pytest.mark.parametrize(
    "path", FIRST + LIBRARY + PAPER, ids=lambda path: f"{path.parent.name}/{path.stem}"
)
first = pytest.mark.parametrize("path", FIRST, ids=lambda path: path.stem)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell: dict) -> str:
    return "".join(cell["source"])


def code(path: Path) -> list[str]:
    return [source(cell) for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def exported(path: Path) -> list[str]:
    "The code of exported cells, without the lines that are orders to nbdev."
    cells = [text for text in code(path) if re.match(r"#\s*\|\s*exports?\b", text)]
    return ["\n".join(line for line in text.split("\n") if not re.match(r"#\s*\|", line)).strip() for text in cells]


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


# How library notebooks are written


def test_there_are_notebooks_of_both_kinds():
    assert LIBRARY and PAPER


def test_the_rooms_are_those_of_the_house_and_have_few_chapters():
    "A room is a folder of nbs/ and a sub-package that says in one sentence what it is for."
    folders = sorted({path.parent for path in LIBRARY}, key=in_order)
    assert all(
        folder.name == f"{ROOMS.index(room) + 1}_{room}"
        for folder in folders
        for room in [folder.name.split("_", 1)[1]]
    )
    for folder in folders:
        numbers = [path.stem.split("_", 1)[0] for path in LIBRARY if path.parent == folder]
        # What an answer says is read in one step after the other, from its dress to what it claims: six chapters that
        # are nothing by themselves, and no room of their own. Trees of one's own are made of names, before any answer,
        # and the lines of their files know neither trees nor data. What a frozen network sees, and the base policy that
        # reads it, are chapters of who is asked; the command that computes it is one more door. What the rules teach is
        # worked out beside them, and is no part of a training.
        rooms = {
            "1_core": 10,
            "2_data": 13,
            "3_judges": 12,
            "4_policy": 11,
            "5_metrics": 9,
            "7_training": 9,
            "10_cli": 9,
        }
        most = rooms.get(folder.name, 8)
        assert numbers == [str(number) for number in range(1, len(numbers) + 1)] and len(numbers) <= most, folder.name
        init = (ROOT / "speciarl" / folder.name.split("_", 1)[1] / "__init__.py").read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(init)), f"{folder.name} does not say what it is for"


@library
def test_a_quarter_is_prose(path):
    cells = read(path)["cells"]
    share = sum(cell["cell_type"] == "markdown" for cell in cells) / len(cells)
    assert share >= 0.25, f"{share:.0%} of the cells are prose"


@first
def test_what_is_read_first_is_short_and_named_in_the_index(path):
    "It exports nothing, is mostly what a user copies, and is run with all others."
    cells = read(path)["cells"]
    assert sum(cell["cell_type"] == "markdown" for cell in cells) >= len(cells) / 4 and not exported(path)
    assert len(cells) <= 20 or path.stem == "tutorial"
    name = path.relative_to(ROOT / "nbs").as_posix()
    assert f"]({name})" in source({"source": [source(cell) for cell in read(ROOT / "nbs" / "index.ipynb")["cells"]]})
    folder = path.parent.relative_to(ROOT).as_posix()
    assert f'os.chdir("/content/speciarl/{folder}")' in code(path)[0]


@first
def test_what_is_read_first_is_shown_as_it_comes_out(path):
    "Its code cells were run, and nothing that they print is a warning, or of one machine only."
    told = "".join(json.dumps(cell.get("outputs", [])) for cell in read(path)["cells"])
    assert told.count('"output_type"') >= 3 and "Warning" not in told and "RANK" not in told


@library
def test_the_module_is_named_like_the_file(path):
    assert source(read(path)["cells"][1]).strip() == f"#| default_exp {module_of(path)}"
    assert sum(bool(re.search(r"^#\| default_exp", text, re.MULTILINE)) for text in code(path)) == 1


@pytest.mark.parametrize("folder", sorted({path.parent.relative_to(ROOT).as_posix() for path in LIBRARY + PAPER}))
def test_the_first_cell_makes_a_notebook_ready_on_colab_and_does_nothing_elsewhere(folder, tmp_path, monkeypatch):
    (cell,) = {code(path)[0] for path in LIBRARY + PAPER if path.parent == ROOT / folder}
    (tmp_path / "content").mkdir()
    for program, does in (("git", f'mkdir -p "$4/{folder}"'), ("pip", "true")):
        (tmp_path / program).write_text(f'#!/bin/sh\necho {program} "$@" >> {tmp_path}/asked\n{does}\n')
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    shell, here = InteractiveShell(), tmp_path / "content"
    shell.run_cell(cell.replace("/content", str(here))).raise_error()
    assert not (tmp_path / "asked").exists() and Path.cwd() == tmp_path
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    shell.run_cell(cell.replace("/content", str(here))).raise_error()
    assert (
        (tmp_path / "asked").read_text()
        == f"git clone -q https://github.com/speciarl/speciarl {here}/speciarl\npip install -q {here}/speciarl[paper]\n"
    )
    assert Path.cwd() == here / "speciarl" / folder


@every
def test_every_chapter_links_to_its_neighbours_and_to_what_it_uses(path):
    line = told(title_cell(nbformat.read(path, as_version=4)).source)
    assert line == links(path), "run: python tests/make_links.py"
    targets = re.findall(r"\]\(([^)]+)\)", line)
    assert len(targets) > 1 and all((path.parent / target).is_file() for target in targets)


@library
def test_chapters_import_rooms_above_and_earlier_chapters_of_their_own(path):
    order = list(MODULES)
    mine = module_of(path)
    room = mine.split(".")[0]
    for text in exported(path):
        for name in imports_of(ast.parse(text)):
            above = ROOMS.index(name.split(".")[0]) < ROOMS.index(room)
            earlier = name.split(".")[0] == room and order.index(name) < order.index(mine)
            assert above or earlier, f"imports speciarl.{name}, which stands below it"


@all_of_them
def test_no_noise_in_the_file(path):
    notebook = read(path)
    assert set(notebook["metadata"]) == {"kernelspec"} and notebook["metadata"]["kernelspec"]["name"] == "python3"
    for cell in notebook["cells"]:
        assert set(cell["metadata"]) <= {"tags"}, f"cell metadata {cell['metadata']}"
        assert cell.get("execution_count") is None
        assert all(output.get("execution_count") is None for output in cell.get("outputs", []))
        assert all(output["output_type"] != "error" for output in cell.get("outputs", [])), "a saved output is an error"


@all_of_them
def test_every_cell_is_run_in_tests(path):
    for text in code(path):
        assert not re.search(r"^#\s*\|\s*eval:\s*false", text, re.IGNORECASE | re.MULTILINE), (
            "a cell that is never run is never right"
        )


# The two kinds of notebook are kept apart (trap 3)


@library
def test_library_notebooks_have_no_parameters(path):
    assert not any(tags(cell) for cell in read(path)["cells"])


def test_paper_notebooks_are_not_run_by_nbdev_test():
    assert (ROOT / "nbs" / "paper" / ".notest").exists()


def test_paper_notebooks_have_one_parameters_cell_and_no_skipped_ones():
    for path in PAPER:
        cells = read(path)["cells"]
        assert sum("parameters" in tags(cell) for cell in cells) == 1, path.name
        assert all(set(tags(cell)) <= {"parameters"} for cell in cells), path.name
        orders = [line for text in code(path) for line in text.split("\n") if re.match(r"#\s*\|", line)]
        assert not orders, f"{path.name}: {orders[0]} means nothing to papermill"
        assert not any("nbdev_export(" in text for text in code(path)), path.name


def test_paper_notebooks_say_which_profile_their_outputs_are_of():
    for path in PAPER:
        [said] = re.findall(r"outputs shown here are those of profile `(\w+)`", source(read(path)["cells"][0]))
        outputs = json.dumps([cell.get("outputs") for cell in read(path)["cells"]])
        found = set(re.findall(r"Profile (\w+):", outputs))
        assert found == {said}, path.name


# The traps in miniature


def write(path: Path, *sources: str, parameters: bool = True, kernelspec: bool = True) -> Path:
    "A notebook of code cells, the first of them tagged `parameters`."
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in sources])
    if parameters:
        notebook.cells[0].metadata["tags"] = ["parameters"]
    if kernelspec:
        notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "python3"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def nbdev(command: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([Path(sys.executable).parent / command], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path):
    "An nbdev project with our settings and one library notebook that is right."
    shutil.copy(ROOT / "settings.ini", tmp_path)
    write(tmp_path / "nbs" / "00_right.ipynb", "assert 1 + 1 == 2", parameters=False)
    (tmp_path / "speciarl").mkdir()
    (tmp_path / "speciarl" / "__init__.py").write_text('__version__ = "0.1.0"\n')
    return tmp_path


def test_trap_1_the_parameters_tag_survives_cleaning(project):
    notebook = write(project / "nbs" / "paper" / "1_run.ipynb", 'profile = "smoke"', "print(profile)")
    assert nbdev("nbdev_clean", project).returncode == 0
    assert tags(read(notebook)["cells"][0]) == ["parameters"]

    run_notebook(notebook, project / "out.ipynb", {"profile": "laptop"})
    cells = read(project / "out.ipynb")["cells"]
    assert [tags(cell) for cell in cells] == [["parameters"], ["injected-parameters"], []]
    assert source(cells[2]) == "print(profile)" and "".join(cells[2]["outputs"][0]["text"]) == "laptop\n"


def test_trap_1_is_there_without_our_setting(project):
    "If this fails, nbdev has changed, and the setting may go."
    config = project / "settings.ini"
    config.write_text(
        config.read_text(encoding="utf-8").replace("allowed_cell_metadata_keys = tags", ""), encoding="utf-8"
    )
    notebook = write(project / "nbs" / "paper" / "1_run.ipynb", 'profile = "smoke"')
    assert nbdev("nbdev_clean", project).returncode == 0
    assert tags(read(notebook)["cells"][0]) == []


def test_trap_1_a_notebook_that_lost_its_tag_is_refused(tmp_path):
    notebook = write(tmp_path / "lost.ipynb", 'profile = "smoke"', parameters=False)
    with pytest.raises(UserError, match="parameters"):
        run_notebook(notebook, tmp_path / "out.ipynb", {"profile": "laptop"})
    assert not (tmp_path / "out.ipynb").exists()


def test_trap_2_a_dead_kernel_is_no_success(tmp_path):
    notebook = write(tmp_path / "dies.ipynb", "n = 1", "import os\nos._exit(9)", "print('never reached')")
    with pytest.raises(UserError, match=r"(?i)kernel.*died") as error:
        run_notebook(notebook, tmp_path / "out.ipynb", {"n": 2})
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.ipynb").exists()


def test_trap_2_a_failing_cell_leaves_an_earlier_result_alone(tmp_path):
    notebook = write(tmp_path / "fails.ipynb", "n = 1", "1 / n")
    run_notebook(notebook, tmp_path / "out.ipynb", {"n": 2})
    before = (tmp_path / "out.ipynb").read_bytes()
    with pytest.raises(UserError, match="ZeroDivisionError") as error:
        run_notebook(notebook, tmp_path / "out.ipynb", {"n": 0})
    assert "\n" not in str(error.value)
    assert (tmp_path / "out.ipynb").read_bytes() == before


def test_trap_3_nbdev_test_passes_over_paper_notebooks(project):
    write(project / "nbs" / "paper" / "1_wrong.ipynb", "raise RuntimeError('run by the wrong runner')")
    result = nbdev("nbdev_test", project)
    assert result.returncode == 1 and "1_wrong" in result.stderr, "without .notest it is run"

    (project / "nbs" / "paper" / ".notest").touch()
    result = nbdev("nbdev_test", project)
    assert result.returncode == 0 and "Success" in result.stdout


@pytest.mark.parametrize("mark", ["#| eval: false\nprint()", "from nbdev.export import nbdev_export\nnbdev_export()"])
def test_trap_3_cells_the_runners_treat_differently_are_refused(tmp_path, mark):
    notebook = write(tmp_path / "marked.ipynb", "n = 1", mark)
    with pytest.raises(UserError, match="eval: false|nbdev_export"):
        run_notebook(notebook, tmp_path / "out.ipynb", {})
    assert not (tmp_path / "out.ipynb").exists()


def test_trap_4_a_notebook_without_kernelspec_runs(tmp_path):
    notebook = write(tmp_path / "bare.ipynb", "n = 1", "print(n)", kernelspec=False)
    run_notebook(notebook, tmp_path / "out.ipynb", {"n": 3})
    assert "".join(read(tmp_path / "out.ipynb")["cells"][-1]["outputs"][0]["text"]) == "3\n"


def test_trap_5_an_unknown_parameter_is_refused(tmp_path):
    notebook = write(tmp_path / "typo.ipynb", 'profile = "smoke"')
    with pytest.raises(UserError, match=r"(?i)unknown parameter.*prifile") as error:
        run_notebook(notebook, tmp_path / "out.ipynb", {"prifile": "laptop"})
    assert "profile" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out.ipynb").exists()


@every
def test_saved_outputs_hold_no_complaint_of_the_machine_they_were_made_on(path):
    "A warning of another package, with the folder where it is installed, is no part of a chapter."
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            assert "site-packages" not in json.dumps(output), cell.source[:80]
