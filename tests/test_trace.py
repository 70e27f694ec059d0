"""Where a number comes from: found by id, path, name or as a number, and told down to the seed."""

import json
import re
import shutil
from pathlib import Path

import miniature
import pytest
from refusal import message
from typer.testing import CliRunner

from speciarl.cli.app import app
from speciarl.compendium.artefacts import Answered, Keys, Logged, Published, artefact_name, write_published
from speciarl.compendium.audit import find, outputs, trace
from speciarl.compendium.notebook import origin, package_origin
from speciarl.compendium.profile import Design, Job, load_profile, title
from speciarl.core.files import digest, file_digest
from speciarl.policy.predictions import Predictions, to_table, write_predictions

POLICY = {
    "inputs": {"recipe": {"method": "grpo", "seed": 3, "steps": 40}, "policy": "fieldguide-base"},
    "needs": [],
    "versions": {"grpo": 2, "base": 1},
}


def artefact(root, kind, key, keep=True):
    name = f"{kind}-{digest(key)[:16]}"
    if keep:
        (root / ".speciarl/artefacts" / name).mkdir(parents=True)
        (root / ".speciarl/artefacts" / name / "record.json").write_text(
            json.dumps({"kind": kind, "key": key, "files": {}, "seconds": 1.0})
        )
    return name


@pytest.fixture
def project(tmp_path):
    root = miniature.project(tmp_path / "a project")
    policy = artefact(root, "policy", POLICY)
    made = []
    for domain in ("cars", "food"):
        asked = artefact(
            root, "predictions", {"inputs": {"domain": domain}, "needs": [policy], "versions": {"sample": 1}}
        )
        made.append(
            artefact(root, "verdicts", {"inputs": {"judge": "trees"}, "needs": [asked], "versions": {"verdict": 1}})
        )
    record = {
        "id": "1c690114cf",
        "notebook": "1_count",
        "profile": "smoke",
        "parameters": {"draws": 5},
        "inputs": dict(zip(("verdicts A cars", "verdicts A food"), made)),
    }
    for profile in ("smoke", "laptop"):
        (root / "figures" / profile).mkdir(parents=True)
        (root / "figures" / profile / "plane.pdf").write_bytes(b"%PDF")
        (root / ".speciarl/records" / profile).mkdir(parents=True)
        success = {
            "parts": origin(root / "nbs/paper/1_count.ipynb", package_origin(root)),
            "outputs": {f"figures/{profile}/plane.pdf": file_digest(root / "figures" / profile / "plane.pdf")},
            "seconds": 1.0,
        }
        (root / ".speciarl/records" / profile / "1_count.json").write_text(json.dumps(success))
        (root / "figures" / profile / "plane.json").write_text(
            json.dumps({**record, "profile": profile, "id": "1c690114cf" if profile == "smoke" else "2d00000000"})
        )
    (root / "paper/tables/smoke").mkdir(parents=True)
    (root / "paper/tables/smoke/count.values.json").write_text('{"plates": 48}')
    return root


def test_the_whole_ancestry(project):
    lines = trace("1c690114cf", project)
    assert lines[0] == "figure, figures/smoke/plane.pdf, record 1c690114cf"
    assert lines[1] == "drawn by nbs/paper/1_count.ipynb, profile smoke, draws=5" and lines[2].endswith(
        "lock None (all as in this checkout)"
    )
    assert [line.split("-")[0].strip().split(" ")[0] for line in lines[3:]] == [
        "from",
        "verdicts",
        "predictions",
        "policy",
        "from",
        "verdicts",
        "predictions",
        "policy",
    ]
    assert lines[6].endswith(
        "recipe.method=grpo, recipe.seed=3, recipe.steps=40, policy=fieldguide-base; versions grpo=2, base=1"
    ) and lines[10].endswith(": see above")


def test_what_changed_since_is_said(project):
    miniature.notebook(project / "nbs/paper/1_count.ipynb", miniature.PARAMETERS, "1")
    (project / "constraints.txt").write_text("torch==2.13.0\n")
    assert trace("2d00", project)[2].endswith(" (changed since: source, lock)")


@pytest.mark.parametrize("elsewhere", ["figures/laptop/plane.pdf", ".speciarl/records/laptop/1_count.json"])
def test_of_a_result_made_elsewhere_nothing_is_said_of_changes(project, elsewhere):
    (project / elsewhere).unlink()
    if elsewhere.endswith(".pdf"):
        (project / elsewhere).write_bytes(b"%PDF of another machine")
    assert trace("2d00", project)[2].startswith("from verdicts A cars")


def test_when_and_where_it_was_made(project):
    note = {
        "commit": "ab" * 20,
        "dirty": True,
        "python": "3.11.7",
        "versions": {"numpy": "2.0"},
        "machine": {"system": "Linux", "cores": 2},
        "seconds": 3.5,
        "time": "2026-11-21T12:00:00+00:00",
    }
    (project / "paper/notebooks/smoke").mkdir(parents=True)
    (project / "paper/notebooks/smoke/1_count.made.json").write_text(json.dumps(note))
    assert (
        trace("1c69", project)[3]
        == "made 2026-11-21T12:00:00+00:00 in 3.5 s, commit ababababab, with changes; Linux, 2 cores; python 3.11.7, "
        "numpy 2.0"
    )


def test_a_number_is_traced_to_its_notebooks_artefacts(project):
    lines = trace("count.plates", project)
    assert (
        lines[0] == "number count.plates = 48, paper/tables/smoke/count.values.json"
        and sum(line.startswith("from verdicts") for line in lines) == 2
    )


def test_artefacts_that_are_not_here(project):
    for path in (project / ".speciarl/artefacts").glob("policy-*/record.json"):
        path.unlink()
    assert any(
        line.strip().startswith("policy-")
        and line.endswith(": not on this machine and not among the published predictions")
        for line in trace("1c69", project)
    )


def test_names_that_mean_nothing_or_too_much(project):
    for name in ("1c690114cf", "figures/smoke/plane.png", str(project / "figures/smoke/plane.json")):
        assert find(name, project).path == "figures/smoke/plane.pdf"
    assert find("plane", project, "laptop").record["id"] == "2d00000000"
    assert (
        message(find, "plane", project)
        == "plane may be figures/laptop/plane.pdf or figures/smoke/plane.pdf; say which with --profile"
    )
    assert (
        message(find, "count.plate", project)
        == "nothing here is called 'count.plate'; near: count.plates; give an id from the paper, a figure, a table, "
        "or a number like benchmark.SpeciaRL.fine.HM"
    )


def test_on_the_command_line(project, monkeypatch):
    monkeypatch.chdir(project / "nbs")
    said = CliRunner().invoke(app, ["trace", "1c69"])
    assert said.exit_code == 0 and said.stdout.splitlines() == trace("1c69", project)
    assert (
        CliRunner()
        .invoke(app, ["trace", "plane", "--profile", "laptop"])
        .stdout.startswith("figure, figures/laptop/plane.pdf, record 2d00000000\n")
    )
    assert CliRunner().invoke(app, ["trace", "nothing at all"]).exit_code == 2


# On a fresh clone: no artefacts, but published answers


@pytest.fixture
def clone(tmp_path):
    "A project that publishes the answers of one policy, and the job of their verdicts."
    root = miniature.project(tmp_path / "a clone")
    job = Job("predictions", "SFT", 0, "cars", "general", 1, 100)
    row = {"sample_id": "1", "dataset": "cars", "split": "test", "label": "bmw x1", "prompt": "general", "rollout": 0}
    answers = tmp_path / "answers.parquet"
    write_predictions(answers, Predictions({}, to_table([{**row, "text": "car", "answer": "car"}])))
    key = {"inputs": {"domain": "cars"}, "needs": [artefact_name("policy", POLICY)], "versions": {"sample": 1}}
    logged = Logged(Job("policy", "SFT", 0), POLICY, "")
    write_published([Answered(job, key, answers, None)], [logged], root / "paper/predictions/smoke")
    (root / "figures/smoke").mkdir(parents=True)
    return root, job._replace(kind="verdicts")


def drawn_from(root, job, artefact):
    record = {"id": "1c690114cf", "notebook": "1_count", "profile": "smoke", "inputs": {title(job): artefact}}
    (root / "figures/smoke/plane.json").write_text(json.dumps(record))
    return [line.strip().split(" ")[0].split("-")[0] for line in trace("plane", root)[2:]]


def test_verdicts_are_traced_on_a_fresh_clone(clone):
    root, job = clone
    keys = Keys(Design(load_profile("smoke")), root, Published(root / "paper/predictions/smoke"))
    assert drawn_from(root, job, keys.name(job)) == ["from", "verdicts", "predictions", "policy"]


def test_verdicts_of_another_judge_are_traced_to_the_published_answers(clone):
    root, job = clone
    assert drawn_from(root, job, "verdicts-0123456789abcdef") == ["from", "verdicts", "predictions", "policy"]
    told = "verdicts-0123456789abcdef: judged otherwise than this checkout would judge; the answers are published"
    assert trace("plane", root)[3].strip() == told


# On this repository as a clone has it


@pytest.fixture(scope="module")
def this_clone(tmp_path_factory):
    "What git holds of the paper, and nothing that was computed here."
    here, root = Path(__file__).parent.parent, tmp_path_factory.mktemp("clone")
    for folder in ("paper", "figures/laptop", "nbs/paper"):
        shutil.copytree(here / folder, root / folder, ignore=shutil.ignore_patterns("build", "notebooks", "smoke"))
    return root


@pytest.mark.parametrize(
    "number, own, policies",
    [
        ("benchmark.SpeciaRL.fine.HM", 15, {"SpeciaRL"}),
        ("benchmark.own_best.birds.S", 5, {"SFT on own best answers"}),
        ("benchmark.be_specific.very_fine.C", 2, {"base"}),
    ],
)
def test_a_number_tells_its_own_inputs_in_full_and_the_others_in_short(this_clone, number, own, policies):
    lines = trace(number, this_clone, "laptop")
    told = [line.removeprefix("from verdicts ") for line in lines if line.startswith("from verdicts ")]
    assert len(told) == own and {words.partition(" seed ")[0] for words in told} == policies
    assert not any("not on this machine" in line for line in lines), "the answers of these verdicts are published"
    rest = next(line for line in lines if line.startswith("the notebook also draws from"))
    assert rest == f"the notebook also draws from {138 - own} artefacts (--all tells of each):"


def test_everything_is_told_on_request_and_a_table_in_short_otherwise(this_clone):
    short, full = trace("benchmark", this_clone, "laptop"), trace("benchmark", this_clone, "laptop", everything=True)
    assert len(short) < 12 and sum(line.startswith("from verdicts ") for line in full) == 138
    assert not any("not on this machine" in line for line in full)


def test_an_id_names_one_output(this_clone):
    "So that what stands beside a caption, or below a table of the README, is enough to ask with."
    known = outputs(this_clone)
    ids = [output.record["id"] for output in known]
    assert len(known) > 30 and len(set(ids)) == len(ids)
    said = re.findall(
        r"<!-- record (\w+) -->", (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    )
    assert said
    tables = [find(one, this_clone).path for one in said]
    assert tables == ["paper/tables/laptop/photographs.csv", "paper/tables/laptop/benchmark.csv"]
