"""One notebook, run: papermill's five habits, and every way in which a cell can fail."""

import re
import threading
from pathlib import Path

import nbformat
import pytest
from miniature import PARAMETERS, notebook
from refusal import message

from speciarl.compendium.notebook import Kernels, check_cells, run_notebook

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(("tags", "found"), [((), 0), ((["parameters"], ["parameters"]), 2)])
def test_parameters_cell_is_required(tmp_path, tags, found):
    source = notebook(tmp_path / "a.ipynb", PARAMETERS, "1", tags=tags)
    assert message(run_notebook, source, tmp_path / "out.ipynb", {"profile": "laptop"}) == (
        f"a.ipynb has {found} cells tagged `parameters`; give exactly one cell that tag"
    )


def test_the_cleaner_keeps_the_tag():
    from configparser import ConfigParser

    from nbdev.clean import clean_nb

    settings = ConfigParser()
    settings.read(ROOT / "settings.ini")
    keys = settings["DEFAULT"]["allowed_cell_metadata_keys"].split()
    cell = nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"], "scrolled": True})
    nb = nbformat.v4.new_notebook(cells=[cell])
    clean_nb(nb, allowed_cell_metadata_keys=keys)
    assert nb.cells[0].metadata == {"tags": ["parameters"]}


def test_injected_parameters_come_after_the_defaults(tmp_path):
    source = notebook(tmp_path / "a.ipynb", "1", PARAMETERS, "print(profile)", tags=([], ["parameters"]))
    cells = nbformat.read(run_notebook(source, tmp_path / "out.ipynb", {"profile": "laptop"}), 4).cells
    tags = [cell.metadata.get("tags", []) for cell in cells]
    assert tags.index(["injected-parameters"]) == tags.index(["parameters"]) + 1
    assert cells[-1].outputs[0].text == "laptop\n"


@pytest.mark.parametrize(
    ("source", "tags", "mark"),
    [
        ("#| eval: false\nlaunch()", [], "#| eval: false"),
        ("# | eval:false\nlaunch()", [], "#| eval: false"),
        ("from nbdev import nbdev_export; nbdev_export()", [], "nbdev_export"),
        ("1", ["skip-execution"], "skip-execution"),
        ("1", ["injected-parameters"], "injected-parameters"),
    ],
)
def test_cells_the_runners_treat_differently_are_refused(tmp_path, source, tags, mark):
    path = notebook(tmp_path / "a.ipynb", PARAMETERS, source, tags=(["parameters"], tags))
    assert (
        message(check_cells, path)
        == f"code cell 2 of a.ipynb is marked `{mark}`, which papermill does not obey; remove the mark or the cell"
    )


def test_unknown_and_mistyped_parameters(tmp_path):
    source, out = notebook(tmp_path / "a.ipynb", PARAMETERS + "\nplates = 3"), tmp_path / "out.ipynb"
    assert (
        message(run_notebook, source, out, {"prifile": "laptop"})
        == "unknown parameter 'prifile' of a.ipynb; it has: profile, plates"
    )
    assert message(run_notebook, source, out, {"plates": "3"}) == "parameter 'plates' of a.ipynb must be int, not str"
    assert message(run_notebook, source, out, {"plates": True}) == "parameter 'plates' of a.ipynb must be int, not bool"
    assert not out.exists()


def test_runs_without_kernelspec_in_an_odd_folder(tmp_path):
    source = notebook(
        tmp_path / "a {b} ü" / "a.ipynb",
        PARAMETERS,
        "import os; print(os.path.basename(os.getcwd()))",
        kernelspec=False,
    )
    cells = nbformat.read(run_notebook(source, tmp_path / "o {x}" / "out.ipynb"), 4).cells
    assert cells[-1].outputs[0].text == "a {b} ü\n"


def failing(tmp_path, cell, **kwargs):
    source, out = notebook(tmp_path / "a.ipynb", PARAMETERS, cell, "print('never')"), tmp_path / "runs" / "a.ipynb"
    text = message(run_notebook, source, out, **kwargs)
    assert not out.exists() and [path.name for path in out.parent.iterdir()] == ["a.failed.ipynb"]
    look = f"; look at it with: jupyter lab '{out.parent / 'a.failed.ipynb'}'"
    assert text.endswith(look)
    return text.removesuffix(look)


def test_a_cell_that_raises(tmp_path):
    assert (
        failing(tmp_path, "def f():\n    return 1 / 0\nf()")
        == "a.ipynb stopped in cell [2], line 3 (`f()`): ZeroDivisionError: division by zero"
    )


def test_a_cell_that_kills_the_kernel(tmp_path):
    assert (
        failing(tmp_path, "import os\nos._exit(3)")
        == "the kernel of a.ipynb died in cell [2] (out of memory, or a crash in a library)"
    )


def test_a_cell_that_leaves_quietly(tmp_path):
    assert (
        failing(tmp_path, "import sys\nsys.exit()")
        == "a.ipynb ended early in cell [2] without an error (an exit in the cell?)"
    )


def test_a_cell_that_never_ends(tmp_path):
    said = failing(tmp_path, "import time\ntime.sleep(60)", timeout=3)
    assert re.fullmatch(
        r"a\.ipynb did not end within 3 s and was stopped in cell \[[12]\]", said
    )  # a busy machine may need 3 s for the first


def test_the_limit_is_for_the_whole_notebook(tmp_path):
    "Every cell alone would be within it."
    source = notebook(tmp_path / "a.ipynb", PARAMETERS, *["import time\ntime.sleep(1.5)"] * 3)
    assert message(run_notebook, source, tmp_path / "out.ipynb", timeout=4).startswith(
        "a.ipynb did not end within 4 s and was stopped in cell ["
    )


def test_a_cell_that_fills_the_disk(tmp_path):
    assert failing(tmp_path, "with open('/dev/full', 'w') as file:\n    file.write('x' * 100_000)") == (
        "a.ipynb stopped in cell [2], line 2 (`file.write('x' * 100_000)`): OSError: [Errno 28] No space left on device"
    )


def test_the_disk_is_full_when_the_notebook_is_saved(tmp_path, monkeypatch):
    from papermill import iorw

    def full(self, buf, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(iorw.LocalHandler, "write", full)
    source = notebook(tmp_path / "a.ipynb", PARAMETERS)
    assert (
        message(run_notebook, source, tmp_path / "runs" / "a.ipynb")
        == f"cannot save {tmp_path / 'runs'}: No space left on device; what was finished before is kept"
    )


def test_kernels_end_when_a_run_is_interrupted(tmp_path):
    kernels = Kernels()

    def interrupt(cell):
        if cell == 2:
            threading.Timer(0.3, kernels.stop).start()

    assert (
        failing(tmp_path, "import time\ntime.sleep(60)", on_cell=interrupt, kernels=kernels)
        == "the kernel of a.ipynb died in cell [2] (out of memory, or a crash in a library)"
    )
    assert kernels.working == [], "what has ended is forgotten"


def test_a_good_run_removes_the_failed_copy(tmp_path):
    failing(tmp_path, "1 / 0")
    run_notebook(notebook(tmp_path / "a.ipynb", PARAMETERS, "1"), tmp_path / "runs" / "a.ipynb")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a.ipynb"]


def test_files_that_are_no_notebooks(tmp_path):
    (tmp_path / "a.ipynb").write_text("not json")
    assert message(check_cells, tmp_path / "a.ipynb").startswith(f"{tmp_path / 'a.ipynb'} is not a notebook: ")
    assert (
        message(check_cells, tmp_path / "b.ipynb")
        == f"cannot read notebook {tmp_path / 'b.ipynb'}: No such file or directory"
    )
