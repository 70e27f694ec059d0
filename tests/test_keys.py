"""What changes a key and what does not: declared versions do, the text of the code does not, and no default changes
unnoticed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from speciarl.compendium import artefacts
from speciarl.compendium.artefacts import VERSIONS
from speciarl.compendium.lab import Lab
from speciarl.compendium.notebook import code_hash
from speciarl.compendium.profile import SECTIONS
from speciarl.policy.prompts import Prompt
from speciarl.training.recipe import Recipe

PACKAGE = Path(artefacts.__file__).parent.parent
DEFAULTS = Path(__file__).parent / "data/defaults_in_keys.json"
ALL_KEYS = """
import json, sys
from speciarl.compendium.lab import Desk, Lab
from speciarl.compendium.profile import SECTIONS

told = {}
for profile in ("smoke", "laptop", "paper"):
    lab = Lab(profile, sys.argv[1], workers=0)
    jobs = lab.design.wanted(SECTIONS.values())
    asked = [job._replace(kind="predictions") for job in jobs if job.kind == "verdicts"]
    told[profile] = sorted({lab.keys.name(job) for job in [*jobs, *asked]})
    told[profile, "record"] = Desk(lab, "4_benchmark", tuple(jobs)).record("tables/benchmark", seeds=3)["id"]
print(json.dumps(list(told.values())))
"""


def told_by(folder: Path, root: Path) -> list:
    "The names of all artefacts of the packaged profiles, and the ids of a record of each, by the package in `folder`."
    result = subprocess.run(
        [sys.executable, "-c", ALL_KEYS, root],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout)


def test_no_edit_of_the_code_changes_a_key_or_a_record(tmp_path):
    """Every module of a copy gets another docstring and another line of code, the checkout another lock, and a paper
    notebook another text."""
    shutil.copytree(PACKAGE, tmp_path / "edited/speciarl", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "edited/speciarl").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('"""', '"""Edited. ', 1) + "\n\ndef edited():\n    return 42\n", encoding="utf-8")
    root = tmp_path / "checkout"
    (root / "nbs/paper").mkdir(parents=True)
    (root / "constraints.txt").write_text("torch==2.13.0\n")
    (root / "nbs/paper/4_benchmark.ipynb").write_text('{"cells": []}')
    before = told_by(PACKAGE.parent, root)
    (root / "constraints.txt").write_text("torch==2.14.0\n")
    (root / "nbs/paper/4_benchmark.ipynb").write_text(
        '{"cells": [{"cell_type": "markdown", "source": "Better words.", "metadata": {}}]}'
    )
    assert told_by(tmp_path / "edited", root) == before and code_hash(tmp_path / "edited/speciarl") != code_hash()


# Versions


@pytest.fixture(scope="module")
def lab_and_jobs(tmp_path_factory):
    """A laboratory of the laptop profile with every job there is, and the methods that trained the policy of each, a
    start among them."""
    lab = Lab("laptop", tmp_path_factory.mktemp("lab"), workers=0)
    judged = lab.design.wanted(SECTIONS.values())
    jobs = list(
        dict.fromkeys([*judged, *(job._replace(kind="predictions") for job in judged if job.kind == "verdicts")])
    )
    methods = {}
    for job in jobs:
        policy, taught = job.policy, set()
        while policy in lab.design.methods and lab.design.trained(policy):
            taught.add(lab.design.recipe(policy).method)
            policy = lab.design.methods[policy].start
        methods[job] = taught
    return lab, jobs, methods


def is_of_photographs(job):
    "Whether a job belongs to the group of photographs, whose data sets and methods are called so."
    return job.domain.startswith("photo-") or job.policy.startswith("photo")


def is_changed_by(step, job, taught):
    """Whether raising the version of `step` has to change the artefact of a job whose policy was `taught` by these
    methods."""
    if step == "base":
        return not is_of_photographs(job)  # everything else in this profile looks at drawn plates
    if step == "sample":
        return job.kind != "policy" or "self" in taught
    if step == "closed":
        return job.kind == "closed"
    if step == "verdict":
        return job.kind == "verdicts" or bool(taught & {"self", "grpo", "tapo"})
    return step in taught


@pytest.mark.parametrize("step", VERSIONS)
def test_a_raised_version_changes_its_step_and_what_needs_it(lab_and_jobs, monkeypatch, step):
    lab, jobs, methods = lab_and_jobs
    before = {job: lab.keys.name(job) for job in jobs}
    monkeypatch.setattr(artefacts, "VERSIONS", {**VERSIONS, step: VERSIONS[step] + 1})
    raised = Lab("laptop", lab.root, workers=0)
    changed = {job for job in jobs if raised.keys.name(job) != before[job]}
    assert changed == {job for job in jobs if is_changed_by(step, job, methods[job])} and changed


def test_every_job_has_a_key_of_its_own(lab_and_jobs):
    lab, jobs, _ = lab_and_jobs
    assert len({lab.keys.name(job) for job in jobs}) == len(jobs)


# Defaults


def test_defaults_of_what_keys_leave_out_are_pinned():
    "Keys hold of recipes and prompts what differs from the defaults."
    pinned = json.loads(DEFAULTS.read_text())
    for model in (Recipe, Prompt):
        now = {name: "required" if field.is_required() else field.default for name, field in model.model_fields.items()}
        known = pinned[model.__name__]
        new = {name: default for name, default in now.items() if name not in known}
        assert not new, (
            f"new in {model.__name__}: {new}; if the default is what was done before, old keys stay right: add it to "
            f"{DEFAULTS.name}"
        )
        changed = [name for name in known if name not in now or now[name] != known[name]]
        assert not changed, (
            f"the defaults of {changed} in {model.__name__} changed, so that old keys now mean something else: "
            "raise the versions (speciarl.compendium.artefacts.VERSIONS) of the methods that this concerns, then "
            f"pin the new defaults in {DEFAULTS.name}"
        )


def test_a_recipe_key_holds_what_differs_from_the_defaults(tmp_path):
    lab = Lab("laptop", tmp_path, workers=0)
    held = lab.keys.key(lab.design.job("SpeciaRL", 1))["inputs"]["recipe"]
    assert (
        held["method"] == "grpo"
        and held["rule"] == "dynamic"
        and held["seed"] == 1
        and not {"kl", "clip_low", "name", "policy"} & set(held)
    )
    whole = lab.design.recipe("SpeciaRL", 1)
    assert Recipe.model_validate({"name": whole.name, "policy": whole.policy, **held}) == whole
