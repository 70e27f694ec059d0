"""The reproduction engine on miniature projects: what it refuses, what it keeps, and what it does again after a
kill."""

import os
import re
import shutil
import subprocess
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import miniature
import nbformat
import pytest
import soak
from miniature import PARAMETERS, WRITE, notebook
from refusal import message

from speciarl.compendium import notebook as notebooks
from speciarl.compendium import reproduce as engine
from speciarl.compendium.audit import trace
from speciarl.compendium.lab import Lab
from speciarl.compendium.notebook import check_cells, check_parameters
from speciarl.compendium.paper import ManifestEntry, read_manifest
from speciarl.compendium.profile import load_profile
from speciarl.compendium.reproduce import make_plan, open_place, open_view, reproduce
from speciarl.core.files import read_json

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A miniature project that was run once, in a folder with an odd name, and what that printed; tests get copies."
    root, text = miniature.project(tmp_path_factory.mktemp("engine") / "a {project} ü"), StringIO()
    with redirect_stdout(text):
        reproduce("smoke", root=root, workers=1)
    return root, text.getvalue()


@pytest.fixture
def project(tmp_path):
    return miniature.project(tmp_path / "a project")


@pytest.fixture
def done(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "a project", symlinks=True))


def reasons(root, **kwargs):
    return [step.reason for step in make_plan("smoke", root=root, **kwargs).steps]


def lines(text):
    return [re.sub(r"\d+ s$", "N s", line) for line in text.splitlines()]


def plain(capsys):
    return lines(capsys.readouterr().out)


def test_reproduce_and_again(finished, done, capsys):
    assert lines(finished[1]) == [
        "[1/3] 1_count: running",
        "[1/3] 1_count: done in N s",
        "[2/3] 2_share: running",
        "[2/3] 2_share: done in N s",
        "[3/3] paper: running",
        "[3/3] paper: done in N s",
    ]
    assert "48 plates, −0.5, profile smoke." in (done / "paper/build/smoke/paper.md").read_text()
    assert (done / "paper/build/smoke/paper.pdf").read_bytes().startswith(b"%PDF") and not (
        done / "paper/paper.pdf"
    ).exists()
    assert sorted(path.name for path in (done / ".speciarl/executed/smoke").iterdir()) == [
        "1_count.ipynb",
        "2_share.ipynb",
    ]
    assert not any((done / ".speciarl/views/smoke").iterdir())
    reproduce("smoke", root=done)
    assert plain(capsys) == [f"{name}: kept, nothing changed" for name in ("1_count", "2_share", "paper")]


def test_executed_notebooks_are_kept_with_a_note(done):
    kept = done / "paper/notebooks/smoke"
    assert sorted(path.name for path in kept.iterdir()) == [
        "1_count.html",
        "1_count.made.json",
        "2_share.html",
        "2_share.made.json",
        "paper.made.json",
    ]
    assert "count.values.json" in (kept / "1_count.html").read_text()
    note = read_json(kept / "1_count.made.json")
    assert (
        set(note) == {"commit", "dirty", "python", "versions", "machine", "seconds", "largest process in MB", "time"}
        and note["commit"] is None
    )


def test_only_what_changed_is_run(done):
    assert reasons(done) == [None] * 3 and reasons(done, force=True) == ["forced", "forced", "its notebooks run"]
    notebook(done / "nbs/paper/2_share.ipynb", PARAMETERS, WRITE.format(stem="share", values={"value": 0.25}))
    assert reasons(done) == [None, "changed: source", "its notebooks run"]
    record = (done / ".speciarl/records/smoke/1_count.json").read_bytes()
    reproduce("smoke", root=done)
    assert (done / ".speciarl/records/smoke/1_count.json").read_bytes() == record and reasons(done) == [None] * 3
    (done / "paper/tables/smoke/count.values.json").write_text('{"plates": 49}')
    assert reasons(done)[:2] == ["edited: paper/tables/smoke/count.values.json", None]
    (done / "paper/tables/smoke/count.values.json").unlink()
    assert reasons(done)[:2] == ["missing: paper/tables/smoke/count.values.json", None]


def test_what_a_notebook_depends_on(done):
    (done / "paper/paper.md").write_text("# Mini\n\nOther words.\n")
    assert reasons(done) == [None, None, "changed: inputs"]
    notebook(
        done / "nbs/paper/2_share.ipynb",
        PARAMETERS,
        "from speciarl.core.scale import Category",
        WRITE.format(stem="share", values={"value": 1}),
    )
    assert reasons(done)[:2] == [None, "changed: source"]
    (done / "paper/manifest.yaml").write_text(
        "notebooks:\n  1_count: {values: [count], inputs: [paper/judges]}\n  2_share: {values: [share]}\n"
    )
    assert reasons(done)[0] == "changed: inputs"
    (done / "constraints.txt").write_text("torch==2.13.0\n")
    assert reasons(done) == ["changed: lock", "changed: source", "its notebooks run"]


def test_artefacts_count_by_their_keys(done, monkeypatch):
    (done / "paper/manifest.yaml").write_text(
        "notebooks:\n  1_count: {values: [count], needs: [zero-shot]}\n  2_share: {values: [share]}\n"
    )
    plan = make_plan("smoke", root=done)
    assert [step.reason for step in plan.steps] == ["changed: artefacts", None, "its notebooks run"]
    assert set(plan.missing) == {"predictions", "closed", "verdicts"} and plan.seconds is None
    (done / "paper/manifest.yaml").write_text(
        "notebooks:\n  1_count: {values: [count], needs: [magic]}\n  2_share: {values: [share]}\n"
    )
    assert message(make_plan, "smoke", root=done).startswith("unknown method 'magic'; there are: ")


def test_saved_outputs_and_times_are_not_source(done):
    """A notebook with saved outputs, copied files, and a clock that jumped to 1999 and 2040: nothing is keyed by
    time."""
    path = done / "nbs/paper/1_count.ipynb"
    shutil.copy(done / ".speciarl/executed/smoke/1_count.ipynb", path)
    nb = nbformat.read(path, 4)
    nb.cells = [cell for cell in nb.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    nbformat.write(nb, path)
    for number, path in enumerate(sorted(done.rglob("*.*"))):
        os.utime(path, ns=((915_148_800 + number % 2 * 1_300_000_000) * 10**9,) * 2)
    assert reasons(done) == [None, None, None]


def test_a_clock_that_jumps_while_it_runs(project, monkeypatch, capsys):
    now = [2e9]
    monkeypatch.setattr(time, "time", lambda: now.__setitem__(0, now[0] - 3600) or now[0])
    reproduce("smoke", "1_count", root=project)
    assert (
        plain(capsys)[-1] == "[1/1] 1_count: done in N s"
        and 0 <= read_json(project / ".speciarl/records/smoke/1_count.json")["seconds"] < 600
    )
    assert reasons(project)[0] is None


def test_plan_runs_nothing(project, capsys):
    plan = reproduce("smoke", root=project, plan=True)
    assert [step.name for step in plan.steps] == ["1_count", "2_share", "paper"] and not (
        project / ".speciarl"
    ).exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("profile smoke: ") and lines[1] == "1_count            run, not run yet"


def test_only_one_notebook(done, capsys):
    notebook(done / "nbs/paper/1_count.ipynb", PARAMETERS, "1 / 0")
    reproduce("smoke", only="2_share", force=True, root=done)
    assert plain(capsys) == ["[1/1] 2_share: running", "[1/1] 2_share: done in N s"] and reasons(done) == [
        "changed: source",
        None,
        "its notebooks run",
    ]


def test_results_can_go_elsewhere_and_the_source_is_not_touched(done, tmp_path, capsys):
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    out = tmp_path / "fremdes Ziel {ü}"
    reproduce("smoke", root=done, out=out)
    assert before == {path: path.read_bytes() for path in done.rglob("*") if path.is_file()}
    for name in ("paper/tables/smoke/count.values.json", "paper/build/smoke/paper.pdf"):
        assert (out / name).read_bytes() == (done / name).read_bytes()
    capsys.readouterr()
    reproduce("smoke", root=done, out=out)
    assert plain(capsys) == [f"{name}: kept, nothing changed" for name in ("1_count", "2_share", "paper")]


def test_a_view_holds_what_the_profile_names(project, tmp_path):
    "The data of the profile paper lie in the checkout; a notebook works in a view of it."
    (project / "data" / "cub200").mkdir(parents=True)
    view = open_view(open_place("paper", project), tmp_path / "view", ManifestEntry("lab"))
    lab = Lab("paper", view)
    assert lab.instruments.data_root == (project / "data").resolve()
    told = message(lab.instruments.samples, lab.design.job("zero-shot", 0, "cub200"))
    assert told.startswith(f"{(project / 'data' / 'cub200').resolve()}")


def test_a_view_that_stays_forgets_published_predictions(project, tmp_path):
    place, published = open_place("smoke", project), tmp_path / "published"
    published.mkdir()
    view = open_view(place._replace(published=published), tmp_path / "view", ManifestEntry("lab"))
    assert (view / ".speciarl/published").readlink() == published
    open_view(place, view, ManifestEntry("lab"))
    assert not (view / ".speciarl/published").is_symlink()


def test_a_notebook_that_reads_another_comes_after_it(project):
    read = 'import json\nfound = json.load(open(f"../../paper/tables/{profile}/count.values.json"))'
    notebook(project / "nbs/paper/0_sum.ipynb", PARAMETERS, read, WRITE.format(stem="sum", values="found"))
    with open(project / "paper/manifest.yaml", "a") as file:
        file.write("  0_sum: {values: [sum], inputs: ['paper/tables/{profile}/count.values.json']}\n")
    reproduce("smoke", root=project)
    assert read_json(project / "paper/tables/smoke/sum.values.json") == {"plates": 48}
    notebook(project / "nbs/paper/1_count.ipynb", PARAMETERS, WRITE.format(stem="count", values={"plates": 50}))
    assert reasons(project) == ["changed: source", None, "1_count runs", "its notebooks run"]


def test_records_say_what_an_output_was_made_from(project):
    cells = [
        "from speciarl.compendium.lab import Desk, Lab\nfrom speciarl.report.table import Table",
        'Desk(Lab(profile, "../.."), "1_count").table(Table(["a"], [["x"]], "Letters."), "letters")',
    ]
    notebook(project / "nbs/paper/1_count.ipynb", PARAMETERS, *cells)
    (project / "paper/manifest.yaml").write_text(
        "notebooks:\n  1_count: {tables: [letters]}\n  2_share: {values: [share]}\n"
    )
    (project / "paper/paper.md").write_text("# Mini\n\n{{table:letters}}\n")
    (project / "constraints.txt").write_text("torch==2.13.0\n")
    reproduce("smoke", root=project)
    record = read_json(project / "paper/tables/smoke/letters.json")
    assert {"id", "output", "notebook", "profile", "parameters", "inputs"} == set(record)
    assert (
        f"Letters. `#box(text(size: 6.5pt, fill: luma(45%))[record {record['id']}])`"
        in (project / "paper/build/smoke/paper.md").read_text()
    )
    lines = trace(record["id"], project)
    assert (
        lines[0] == f"table, paper/tables/smoke/letters.csv, record {record['id']}"
        and lines[2].endswith("(all as in this checkout)")
        and lines[3].startswith("made ")
    )


def test_other_words_in_a_notebook_run_it_again_and_change_no_table(project, monkeypatch):
    cells = [
        "from speciarl.compendium.lab import Desk, Lab\nfrom speciarl.report.table import Table",
        'Desk(Lab(profile, "../.."), "1_count").table(Table(["a"], [["x"]], "Letters."), "letters")',
    ]
    path = notebook(project / "nbs/paper/1_count.ipynb", PARAMETERS, *cells)
    (project / "paper/manifest.yaml").write_text(
        "notebooks:\n  1_count: {tables: [letters]}\n  2_share: {values: [share]}\n"
    )
    (project / "paper/paper.md").write_text("# Mini\n\n{{table:letters}}\n")
    reproduce("smoke", root=project)
    outputs = [*sorted((project / "paper/tables/smoke").iterdir()), project / "paper/build/smoke/paper.pdf"]
    before = [output.read_bytes() for output in outputs]
    nb = nbformat.read(path, 4)
    nb.cells.insert(0, nbformat.v4.new_markdown_cell("What the letters are."))
    nbformat.write(nb, path)
    monkeypatch.setattr(notebooks, "code_hash", lambda: "another docstring somewhere in the package")
    assert reasons(project) == ["changed: source", "changed: code", "its notebooks run"]
    reproduce("smoke", root=project)
    assert [output.read_bytes() for output in outputs] == before and reasons(project) == [None] * 3


def test_unknown_profile_and_notebook(project, tmp_path):
    assert message(reproduce, "huge", root=project).startswith("unknown profile 'huge'")
    assert (
        message(reproduce, "smoke", only="9_none", root=project)
        == "unknown notebook '9_none'; there are: 1_count, 2_share, paper"
    )
    assert message(reproduce, "smoke", root=tmp_path / "elsewhere") == (
        f"{tmp_path}/elsewhere holds no paper notebooks; get them with: git clone "
        "https://github.com/speciarl/speciarl && cd speciarl && make reproduce"
    )
    assert message(reproduce, "smoke", root=project, published=tmp_path / "nowhere") == (
        f"{tmp_path / 'nowhere'} holds no published predictions (*.parquet); --from-predictions takes the folder "
        "that was exported"
    )


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        ("sedes: [0]", "unknown key 'sedes'"),
        ("best_of: many", "best_of: Input should be a valid integer"),
        ("seeds: []", "seeds: List should have at least 1 item"),
        ("minutes: [", ""),
    ],
)
def test_profiles_with_faults(project, tmp_path, edit, fault):
    text = (ROOT / "speciarl/assets/profiles/smoke.yaml").read_text()
    key = edit.split(":")[0]
    path = tmp_path / "mine.yaml"
    path.write_text(re.sub(rf"^{key}:.*\n", "", text, flags=re.MULTILINE) + f"{edit}\n")
    said = message(reproduce, str(path), root=project)
    assert said.startswith("mine.yaml: ") and fault in said and not (project / ".speciarl").exists()


def test_outputs_must_be_those_listed(done):
    kept = (done / "paper/tables/smoke/count.values.json").read_bytes()
    notebook(done / "nbs/paper/1_count.ipynb", PARAMETERS, WRITE.format(stem="total", values={}))
    assert (
        message(reproduce, "smoke", root=done)
        == "1_count.ipynb did not write paper/tables/smoke/count.values.json, which paper/manifest.yaml lists for it"
    )
    for wrote, cell in (
        ("paper/tables/smoke/extra.values.json", WRITE.format(stem="extra", values={})),
        ("nbs/paper/notes.txt", "open('notes.txt', 'w').write('x')"),
    ):
        notebook(done / "nbs/paper/1_count.ipynb", PARAMETERS, WRITE.format(stem="count", values={}), cell)
        assert (
            message(reproduce, "smoke", root=done)
            == f"1_count.ipynb wrote {wrote}, which paper/manifest.yaml does not list for it"
        )
    assert (
        reasons(done)[0] == "changed: source" and (done / "paper/tables/smoke/count.values.json").read_bytes() == kept
    ), "all or none"
    assert not (done / "paper/tables/smoke/extra.values.json").exists() and not (done / "nbs/paper/notes.txt").exists()


def test_a_failure_keeps_what_was_finished(project, capsys):
    notebook(project / "nbs/paper/1_count.ipynb", PARAMETERS, "1 / 0")
    failed = project / ".speciarl/executed/smoke/1_count.failed.ipynb"
    assert (
        message(reproduce, "smoke", root=project)
        == "1_count.ipynb stopped in cell [3], line 1 (`1 / 0`): ZeroDivisionError: division by zero; look at it "
        f"with: jupyter lab '{failed}'"
    )
    assert failed.exists() and {"[1/3] 1_count: failed", "[2/3] 2_share: done in N s"} <= set(plain(capsys))
    assert (
        reasons(project) == ["not run yet", None, "its notebooks run"]
        and not (project / "paper/build/smoke/paper.pdf").exists()
    )


def test_a_notebook_that_never_ends(project):
    notebook(project / "nbs/paper/1_count.ipynb", PARAMETERS, "import time\ntime.sleep(60)")
    said = message(reproduce, "smoke", "1_count", root=project, timeout=0.05)
    assert re.match(
        r"1_count\.ipynb did not end within 3 s and was stopped in cell \[\d\]; look at it with: jupyter lab '", said
    )


def test_a_full_disk(project, monkeypatch):
    replace = os.replace

    def full(source, target):
        if Path(target).parent == project / "paper/tables/smoke":
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert (
            message(reproduce, "smoke", "1_count", root=project)
            == f"cannot keep what 1_count wrote in {project}: No space left on device; what was finished before is kept"
        )
    assert reasons(project)[0] == "not run yet"


def test_stale_outputs_are_removed_and_that_is_said(done, capsys):
    (done / "nbs/paper/2_share.ipynb").unlink()
    (done / "paper/manifest.yaml").write_text("notebooks:\n  1_count: {values: [count]}\n")
    (done / "paper/paper.md").write_text("# Mini\n\n{{count.plates}} plates.\n")
    reproduce("smoke", root=done)
    assert plain(capsys) == [
        "removed paper/tables/smoke/share.values.json: no notebook in paper/manifest.yaml makes it",
        "1_count: kept, nothing changed",
        "[1/1] paper: running",
        "[1/1] paper: done in N s",
    ]
    assert sorted(path.name for path in (done / "paper/notebooks/smoke").iterdir()) == [
        "1_count.html",
        "1_count.made.json",
        "paper.made.json",
    ]


def test_a_missing_number_stops_the_paper(done):
    pdf = (done / "paper/build/smoke/paper.pdf").read_bytes()
    (done / "paper/paper.md").write_text("# Mini\n\n{{count.plate}}\n")
    assert (
        message(reproduce, "smoke", root=done)
        == "line 3 of the paper asks for {{count.plate}}, which no notebook has written; near: count.plates"
    )
    assert (done / "paper/build/smoke/paper.pdf").read_bytes() == pdf


def test_folders_that_cannot_be_written(project, monkeypatch):
    (project / "figures").write_text("a file")
    assert (
        message(reproduce, "smoke", root=project)
        == f"cannot write to {project}/figures/smoke: Not a directory; make it writable, or let results go elsewhere "
        "with --out DIR"
    )
    (project / "figures").unlink()

    def read_only(dir):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(engine.tempfile, "TemporaryFile", read_only)
    assert (
        message(reproduce, "smoke", root=project)
        == f"cannot write to {project}/.speciarl: Read-only file system; make it writable, or let results go "
        "elsewhere with --out DIR"
    )


def test_two_runs_at_once(project):
    with engine.locked(project / ".speciarl/smoke.lock"):
        assert (
            message(reproduce, "smoke", root=project)
            == f"another run of profile smoke is at work in {project}; wait for it, or end it"
        )


def test_a_module_edited_by_hand_stops_everything(project):
    for name in ("nbs/1_core/2_files.ipynb", "speciarl/core/files.py"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    with open(project / "speciarl/core/files.py", "a") as file:
        file.write("# quickly\nmended = True\n")
    assert (
        message(reproduce, "smoke", root=project)
        == "speciarl/core/files.py is not what nbs/1_core/2_files.ipynb exports: put your edit into the notebook and "
        "run nbdev_export"
    )
    assert not (project / ".speciarl").exists()


def test_the_paper_profile_needs_a_gpu(project, monkeypatch):
    monkeypatch.setattr(
        engine, "optional", lambda *names: SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    )
    assert message(reproduce, "paper", root=project) == (
        "the paper profile needs a CUDA GPU and this machine has none; see what it would run with --plan, or use "
        "--profile laptop"
    )
    assert len(reproduce("paper", root=project, plan=True).steps) == 3


def test_the_laptop_paper_is_kept_beside_its_source(project):
    reproduce("laptop", root=project)
    assert (project / "paper/paper.pdf").read_bytes() == (project / "paper/build/laptop/paper.pdf").read_bytes()
    assert load_profile("laptop").name == "laptop"


def test_killed_and_started_again(tmp_path):
    """At five random moments: the same bytes as without the kills, and nothing that was finished is done again."""
    soak.soak(tmp_path, 5, seed=3, say=lambda line: None)


# This repository


def test_paper_notebooks_are_as_the_engine_wants_them():
    entries = read_manifest(ROOT)
    assert [entry.name for entry in entries] == [
        "1_generic_bias",
        "2_judge",
        "3_training",
        "4_benchmark",
        "5_ablations",
        "6_fine_r1",
        "7_photographs",
    ]
    for entry in entries:
        path = ROOT / "nbs/paper" / f"{entry.name}.ipynb"
        check_cells(path)
        check_parameters(path, {"profile": "laptop", "root": "/elsewhere"})


def paper_text() -> str:
    return (ROOT / "paper/paper.md").read_text(encoding="utf-8")


def test_no_result_is_typed_into_the_paper():
    prose = re.sub(
        r"^---\n(.*?)^---\n", lambda m: m[1].split("papersize:")[0], paper_text(), flags=re.DOTALL | re.MULTILINE
    )
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
    outputs = [name for entry in read_manifest(ROOT) for name in entry.outputs("smoke")] + [
        "paper/build/smoke/paper.pdf",
        "paper/build/smoke/paper.typ",
        ".speciarl/records/smoke/paper.json",
    ]
    ignored = subprocess.run(
        ["git", "check-ignore", *outputs], cwd=ROOT, capture_output=True, text=True
    ).stdout.splitlines()
    assert sorted(ignored) == sorted(outputs)
    kept = [name for entry in read_manifest(ROOT) for name in entry.outputs("laptop")] + ["paper/paper.pdf"]
    assert subprocess.run(["git", "check-ignore", *kept], cwd=ROOT, capture_output=True, text=True).stdout == ""
