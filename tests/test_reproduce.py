"""The reproduction engine on miniature projects: what it refuses, what it keeps, and what it does again after a kill."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from refusal import message

from speciarl import reproduce as engine
from speciarl.reproduce import check_cells, make_plan, read_manifest, reproduce, run_notebook

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = 'profile = "smoke"'


def notebook(path: Path, *sources: str, tags=(("parameters",),), kernelspec: bool = True) -> Path:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    for cell, names in zip(cells, tags):
        cell.metadata["tags"] = list(names)
    metadata = {"kernelspec": {"name": "python3", "language": "python", "display_name": "python3"}} if kernelspec else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)
    return path


# One notebook: papermill's five habits


@pytest.mark.parametrize(("tags", "found"), [((), 0), ((["parameters"], ["parameters"]), 2)])
def test_parameters_cell_is_required(tmp_path, tags, found):
    source = notebook(tmp_path / "a.ipynb", PARAMETERS, "1", tags=tags)
    assert message(run_notebook, source, tmp_path / "out.ipynb", {"profile": "laptop"}) == (
        f"a.ipynb has {found} cells tagged `parameters`; give exactly one cell that tag")


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


@pytest.mark.parametrize(("source", "tags", "mark"), [
    ("#| eval: false\nlaunch()", [], "#| eval: false"), ("# | eval:false\nlaunch()", [], "#| eval: false"),
    ("from nbdev import nbdev_export; nbdev_export()", [], "nbdev_export"), ("1", ["skip-execution"], "skip-execution"), ("1", ["injected-parameters"], "injected-parameters")])
def test_cells_the_runners_treat_differently_are_refused(tmp_path, source, tags, mark):
    path = notebook(tmp_path / "a.ipynb", PARAMETERS, source, tags=(["parameters"], tags))
    assert message(check_cells, path) == f"code cell 2 of a.ipynb is marked `{mark}`, which papermill does not obey; remove the mark or the cell"


def test_unknown_and_mistyped_parameters(tmp_path):
    source, out = notebook(tmp_path / "a.ipynb", PARAMETERS + "\nplates = 3"), tmp_path / "out.ipynb"
    assert message(run_notebook, source, out, {"prifile": "laptop"}) == "unknown parameter 'prifile' of a.ipynb; it has: profile, plates"
    assert message(run_notebook, source, out, {"plates": "3"}) == "parameter 'plates' of a.ipynb must be int, not str"
    assert message(run_notebook, source, out, {"plates": True}) == "parameter 'plates' of a.ipynb must be int, not bool"
    assert not out.exists()


def test_runs_without_kernelspec_in_an_odd_folder(tmp_path):
    source = notebook(tmp_path / "a {b} ü" / "a.ipynb", PARAMETERS, "import os; print(os.path.basename(os.getcwd()))", kernelspec=False)
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
    assert failing(tmp_path, "def f():\n    return 1 / 0\nf()") == "a.ipynb stopped in cell [2], line 3 (`f()`): ZeroDivisionError: division by zero"


def test_a_cell_that_kills_the_kernel(tmp_path):
    assert failing(tmp_path, "import os\nos._exit(3)") == "the kernel of a.ipynb died in cell [2] (out of memory, or a crash in a library)"


def test_a_cell_that_leaves_quietly(tmp_path):
    assert failing(tmp_path, "import sys\nsys.exit()") == "a.ipynb ended early in cell [2] without an error (an exit in the cell?)"


def test_a_cell_that_never_ends(tmp_path):
    assert failing(tmp_path, "import time\ntime.sleep(60)", timeout=1) == "cell [2] of a.ipynb ran longer than 1 s"


def test_a_good_run_removes_the_failed_copy(tmp_path):
    failing(tmp_path, "1 / 0")
    run_notebook(notebook(tmp_path / "a.ipynb", PARAMETERS, "1"), tmp_path / "runs" / "a.ipynb")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a.ipynb"]


def test_files_that_are_no_notebooks(tmp_path):
    (tmp_path / "a.ipynb").write_text("not json")
    assert message(check_cells, tmp_path / "a.ipynb").startswith(f"{tmp_path / 'a.ipynb'} is not a notebook: ")
    assert message(check_cells, tmp_path / "b.ipynb") == f"cannot read notebook {tmp_path / 'b.ipynb'}: No such file or directory"


# A miniature project

WRITE = """import json, pathlib
folder = pathlib.Path("../../paper/tables") / profile
folder.mkdir(parents=True, exist_ok=True)
(folder / "{stem}.values.json").write_text(json.dumps({values}))"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "package_hash", lambda: "fixed")
    root = tmp_path / "a project"
    notebook(root / "nbs/paper/1_count.ipynb", PARAMETERS, WRITE.format(stem="count", values={"plates": 48}))
    notebook(root / "nbs/paper/2_share.ipynb", PARAMETERS, WRITE.format(stem="share", values={"value": -0.5}))
    (root / "paper").mkdir()
    (root / "paper/manifest.yaml").write_text("notebooks:\n  1_count: {values: [count]}\n  2_share: {values: [share]}\n")
    (root / "paper/paper.md").write_text("# Mini\n\n{{count.plates}} plates, {{share.value:.1f}}, profile {{profile}}.\n")
    return root


def reasons(root, **kwargs):
    return [step.reason for step in make_plan("smoke", root=root, **kwargs)]


def test_reproduce_and_again(project, capsys):
    reproduce("smoke", root=project)
    plain = capsys.readouterr().out.splitlines()
    assert [re.sub(r"\d+ s$", "N s", line) for line in plain] == [
        "[1/3] 1_count: running", "[1/3] 1_count: done in N s", "[2/3] 2_share: running", "[2/3] 2_share: done in N s", "[3/3] paper: running", "[3/3] paper: done in N s"]
    built = (project / "paper/build/smoke/paper.md").read_text()
    assert "48 plates, −0.5, profile smoke." in built
    assert (project / "paper/build/smoke/paper.pdf").read_bytes().startswith(b"%PDF") and not (project / "paper/paper.pdf").exists()
    assert sorted(path.name for path in (project / ".speciarl/executed/smoke").iterdir()) == ["1_count.ipynb", "2_share.ipynb"]
    reproduce("smoke", root=project)
    assert capsys.readouterr().out.splitlines() == [f"[{n}/3] {name}: kept, nothing changed" for n, name in enumerate(("1_count", "2_share", "paper"), 1)]


def test_only_what_changed_is_run(project):
    assert reasons(project) == ["not run yet", "not run yet", "its notebooks run"]
    reproduce("smoke", root=project)
    assert reasons(project) == [None] * 3 and reasons(project, force=True) == ["forced", "forced", "its notebooks run"]
    notebook(project / "nbs/paper/2_share.ipynb", PARAMETERS, WRITE.format(stem="share", values={"value": 0.25}))
    assert reasons(project) == [None, "changed: notebook", "its notebooks run"]
    first = (project / ".speciarl/executed/smoke/1_count.ipynb").stat().st_mtime_ns
    reproduce("smoke", root=project)
    assert (project / ".speciarl/executed/smoke/1_count.ipynb").stat().st_mtime_ns == first and reasons(project) == [None] * 3
    (project / "paper/tables/smoke/count.values.json").write_text('{"plates": 49}')
    assert reasons(project)[:2] == ["edited: paper/tables/smoke/count.values.json", None]
    (project / "paper/tables/smoke/count.values.json").unlink()
    assert reasons(project)[:2] == ["missing: paper/tables/smoke/count.values.json", None]
    reproduce("smoke", root=project)
    (project / "paper/paper.md").write_text("# Mini\n\nOther words.\n")
    assert reasons(project) == [None, None, "changed: inputs"]
    (project / "constraints.txt").write_text("torch==2.13.0\n")
    assert reasons(project) == ["changed: lock", "changed: lock", "its notebooks run"]


def test_saved_outputs_are_not_source(project):
    reproduce("smoke", root=project)
    path = project / "nbs/paper/1_count.ipynb"
    shutil.copy(project / ".speciarl/executed/smoke/1_count.ipynb", path)
    nb = nbformat.read(path, 4)
    nb.cells = [cell for cell in nb.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    nbformat.write(nb, path)
    assert reasons(project)[0] is None


def test_plan_runs_nothing(project, capsys):
    steps = reproduce("smoke", root=project, plan=True)
    assert [step.name for step in steps] == ["1_count", "2_share", "paper"] and not (project / ".speciarl").exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("profile smoke: ") and lines[1] == "1_count            run, not run yet"


def test_only_one_notebook(project, capsys):
    reproduce("smoke", only="2_share", root=project)
    assert reasons(project) == ["not run yet", None, "its notebooks run"]
    assert "1_count" not in capsys.readouterr().out


def test_unknown_profile_and_notebook(project, tmp_path):
    assert message(reproduce, "huge", root=project) == "unknown profile 'huge'; there are: laptop, paper, smoke"
    assert message(reproduce, "smoke", only="9_none", root=project) == "unknown notebook '9_none'; there are: 1_count, 2_share, paper"
    assert message(reproduce, "smoke", root=tmp_path / "elsewhere") == (
        f"{tmp_path}/elsewhere holds no paper notebooks; get them with: git clone https://github.com/speciarl/speciarl && cd speciarl && make reproduce")


def test_manifest_and_notebooks_must_agree(project):
    notebook(project / "nbs/paper/3_more.ipynb", PARAMETERS)
    assert message(read_manifest, project) == "3_more.ipynb is in nbs/paper but not in paper/manifest.yaml; mend the list"
    (project / "nbs/paper/3_more.ipynb").unlink()
    (project / "nbs/paper/1_count.ipynb").unlink()
    assert message(read_manifest, project) == "1_count.ipynb is in paper/manifest.yaml but not in nbs/paper; mend the list"
    (project / "paper/manifest.yaml").write_text("- 1_count\n")
    assert message(read_manifest, project).startswith(f"{project / 'paper/manifest.yaml'} is not a manifest: ")


def test_outputs_must_be_those_listed(project):
    notebook(project / "nbs/paper/1_count.ipynb", PARAMETERS, WRITE.format(stem="total", values={}))
    assert message(reproduce, "smoke", root=project) == (
        "1_count.ipynb did not write paper/tables/smoke/count.values.json, which paper/manifest.yaml lists for it")
    notebook(project / "nbs/paper/1_count.ipynb", PARAMETERS, WRITE.format(stem="count", values={}), WRITE.format(stem="extra", values={}))
    assert message(reproduce, "smoke", root=project) == (
        "1_count.ipynb wrote paper/tables/smoke/extra.values.json, which paper/manifest.yaml does not list for it")
    assert reasons(project)[0] == "not run yet"


def test_a_failure_keeps_what_was_finished(project, capsys):
    notebook(project / "nbs/paper/2_share.ipynb", PARAMETERS, "1 / 0")
    assert message(reproduce, "smoke", root=project).startswith("2_share.ipynb stopped in cell [3], line 1 (`1 / 0`): ZeroDivisionError")
    assert "[2/3] 2_share: failed" in capsys.readouterr().out
    assert reasons(project) == [None, "not run yet", "its notebooks run"]


def test_a_missing_number_stops_the_paper(project):
    (project / "paper/paper.md").write_text("# Mini\n\n{{count.plate}}\n")
    assert message(reproduce, "smoke", root=project) == "line 3 of the paper asks for {{count.plate}}, which no notebook has written; near: count.plates"
    assert not (project / "paper/build/smoke/paper.pdf").exists()


def test_folders_that_cannot_be_written(project, monkeypatch):
    (project / "figures").write_text("a file")
    assert message(reproduce, "smoke", root=project) == f"cannot write to {project}/figures/smoke: Not a directory; make it writable, or work in a copy of the checkout"
    (project / "figures").unlink()

    def read_only(dir):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(engine.tempfile, "TemporaryFile", read_only)
    assert message(reproduce, "smoke", root=project) == f"cannot write to {project}/.speciarl: Read-only file system; make it writable, or work in a copy of the checkout"


def test_two_runs_at_once(project):
    with engine.locked(project / ".speciarl/smoke.lock"):
        assert message(reproduce, "smoke", root=project) == f"another run of profile smoke is at work in {project}; wait for it, or end it"


def test_the_paper_profile_needs_a_gpu(project, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert message(reproduce, "paper", root=project) == (
        "the paper profile needs a CUDA GPU and this machine has none; see what it would run with --plan, or use --profile laptop")
    assert len(reproduce("paper", root=project, plan=True)) == 3


def test_the_laptop_paper_is_kept_beside_its_source(project):
    reproduce("laptop", root=project)
    assert (project / "paper/paper.pdf").read_bytes() == (project / "paper/build/laptop/paper.pdf").read_bytes()


SLOW = """from pathlib import Path
import time
from speciarl.lab import Store
def compute(folder):
    time.sleep(0.7)
    (folder / "x.txt").write_text("{name}")
    with open("../../computed.txt", "a") as file:
        file.write("{name}\\n")
made = Store("../../.speciarl/artefacts").make("slow", {{"name": "{name}"}}, compute)"""


def test_killed_and_started_again(tmp_path):
    """The same bytes as without the kills, and no artefact that was finished is computed again."""
    def build(root):
        for number, name in enumerate("ab", 1):
            notebook(root / f"nbs/paper/{number}_{name}.ipynb", PARAMETERS, SLOW.format(name=name), WRITE.format(stem=name, values={"n": number}))
        (root / "paper").mkdir()
        (root / "paper/manifest.yaml").write_text("notebooks:\n  1_a: {values: [a]}\n  2_b: {values: [b]}\n")
        (root / "paper/paper.md").write_text("# Mini\n\n{{a.n}} and {{b.n}}.\n")
        return [sys.executable, "-c", f"from speciarl.reproduce import reproduce; reproduce('smoke', root={str(root)!r})"]

    def results(root):
        return {path.relative_to(root): path.read_bytes() for folder in ("paper/tables", "paper/build") for path in sorted((root / folder).rglob("*.*")) if path.is_file()}

    def finished(root):
        return {path.parent.name: path.stat().st_mtime_ns for path in (root / ".speciarl/artefacts").glob("slow-*/record.json")}

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(build(whole), check=True, cwd=ROOT)
    command, seen = build(killed), {}
    for moment in (1.5, 2.5, 3.5, 4.5):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert finished(killed).items() >= seen.items()
        seen = finished(killed)
    subprocess.run(command, check=True, cwd=ROOT)
    assert finished(killed).items() >= seen.items() and len(finished(killed)) == 2
    assert results(killed) == results(whole) and len(results(whole)) == 5


# This repository


def test_paper_notebooks_are_as_the_engine_wants_them():
    entries = read_manifest(ROOT)
    assert [entry.name for entry in entries] == ["1_generic_bias", "2_judge", "3_training", "4_benchmark", "5_ablations", "6_fine_r1"]
    for entry in entries:
        path = ROOT / "nbs/paper" / f"{entry.name}.ipynb"
        check_cells(path)
        engine.check_parameters(path, {"profile": "laptop", "root": "/elsewhere"})


def paper_text() -> str:
    return (ROOT / "paper/paper.md").read_text(encoding="utf-8")


def test_no_result_is_typed_into_the_paper():
    prose = re.sub(r"^---\n(.*?)^---\n", lambda m: m[1].split("papersize:")[0], paper_text(), flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"\{\{[^}]*\}\}|\{#[^}]*\}|Qwen2\.5|Fine-R1|@\w+", "", prose)
    assert re.findall(r"\d+\.\d+|\.\d+|\d+ ?%", prose.replace("95 %", "")) == []


def test_what_the_paper_shows_is_listed():
    entries = read_manifest(ROOT)
    asked = {kind: set(re.findall(rf"\{{\{{{kind}:(\w+)\}}\}}", paper_text())) for kind in ("figure", "table")}
    assert asked["figure"] and asked["figure"] <= {stem for entry in entries for stem in entry.figures}
    assert asked["table"] and asked["table"] <= {stem for entry in entries for stem in entry.tables}
    quoted = {name.split(".")[0] for name in re.findall(r"\{\{([a-z_]+\.[^}:]+)", paper_text())}
    assert quoted <= {stem for entry in entries for stem in entry.values}


def test_smoke_outputs_are_ignored_by_git():
    outputs = [name for entry in read_manifest(ROOT) for name in entry.outputs("smoke")] + ["paper/build/smoke/paper.pdf", "paper/build/smoke/paper.typ", ".speciarl/records/smoke/paper.json"]
    ignored = subprocess.run(["git", "check-ignore", *outputs], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    assert sorted(ignored) == sorted(outputs)
    kept = [name for entry in read_manifest(ROOT) for name in entry.outputs("laptop")] + ["paper/paper.pdf"]
    assert subprocess.run(["git", "check-ignore", *kept], cwd=ROOT, capture_output=True, text=True).stdout == ""
