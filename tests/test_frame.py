"""The project's files agree with each other: settings.ini, setup.py, the lock, environment.yml, CITATION.cff, the
package."""

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import speciarl

ROOT = Path(__file__).parent.parent
EXTRAS = {
    "train": ["train"],
    "vllm": ["vllm"],
    "paper": ["paper"],
    "xlsx": ["xlsx"],
    "photos": ["photos", "train"],
    "dev": ["dev", "train", "paper", "xlsx", "photos"],
    "docs": ["docs"],
}
NBDEV_PINS = {"nbdev==2.4.14", "fastcore<1.13", "execnb<0.2", "ghapi<2", "fastgit==0.1.4"}
NEEDS_TORCH = {
    "policy.base",
    "training.plan",
    "policy.model",
    "policy.network",
    "policy.photo_base",
    "fine_r1.cot",
    "fine_r1.tapo",
    "training.trainer",
    "training.settings",
    "training.checkpoints",
    "training.loop",
}  # the only modules that may import it at once


def settings() -> dict[str, str]:
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(parser["DEFAULT"])


def requirements(*parts: str) -> list[Requirement]:
    "The requirements of settings.ini: `requirements` and, for each of `parts`, `PART_requirements`."
    keys = ["requirements", *(f"{part}_requirements" for part in parts)]
    return [Requirement(text) for key in keys for text in settings()[key].split()]


def lock() -> dict[str, Version]:
    lines = [
        line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[^\s+]+", line) for line in lines), (
        "plain NAME==VERSION lines, no local versions, no editable installs"
    )
    pairs = [line.split("==") for line in lines]
    locked = {canonicalize_name(name): Version(version) for name, version in pairs}
    assert len(locked) == len(pairs), "a package is locked twice"
    return locked


def test_settings_hold_what_nbdev_and_papermill_need():
    cfg = settings()
    assert cfg["allowed_cell_metadata_keys"] == "tags"
    assert cfg["allowed_metadata_keys"] == ""
    assert cfg["update_pyproject"] == "False"
    assert cfg["tst_flags"].split() == ["notest", "slow", "gpu", "net"]
    assert cfg["lib_path"] == "speciarl" and cfg["nbs_path"] == "nbs" and cfg["readme_nb"] == "index.ipynb"
    assert set(cfg["dev_requirements"].split()) >= NBDEV_PINS


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert settings()["version"] == citation["version"] == speciarl.__version__
    assert f"## {speciarl.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_requirement_is_locked_at_a_version_it_accepts():
    locked = lock()
    for requirement in requirements("train", "paper", "dev", "docs"):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in constraints.txt"
        assert version in requirement.specifier, f"settings.ini asks for {requirement}, constraints.txt has {version}"


def test_the_lock_leaves_room_for_vllm():
    locked = lock()
    assert [str(r) for r in requirements("vllm") if r not in requirements()] == ["vllm==0.31.0"]
    # What vllm 0.31 asks for where the newest version would not do.
    asked = ["torch==2.13.0", "transformers>=5.10.4,<5.18", "lark==1.2.2", "numpy<2.4"]
    for requirement in map(Requirement, asked):
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, f"vllm 0.31.0 needs {requirement}"
    assert "vllm" not in locked


def test_the_lock_is_complete_and_consistent():
    "Whatever the requirements bring with them is locked too, at a version that those who need it accept."
    locked = lock()
    todo, seen = requirements("train", "paper", "dev"), set()
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if re.match(r"nvidia-|cuda-|triton$", name):
            continue  # come with the CUDA build of PyTorch only
        assert name in locked, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(locked[name], prereleases=True), (
            f"{requirement} does not accept the locked {locked[name]}"
        )
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for needed in map(Requirement, importlib.metadata.requires(name) or []):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                todo.append(needed)
    assert len(seen) > 100


def test_environment_yml_agrees_with_settings_and_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == "speciarl" and environment["channels"] == ["conda-forge"]
    conda = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    (python,) = [entry for entry in conda if entry.startswith("python=")]
    assert Version(python.removeprefix("python=")) >= Version(settings()["min_python"])
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip[0] == "-c constraints.txt" and pip[-1] == "-e .[dev]" and "pip" in conda
    pinned = {r.name: r for r in map(Requirement, pip[1:-1])}
    assert {"torch", "transformers", "trl"} <= pinned.keys()
    for requirement in pinned.values():
        assert str(requirement.specifier) == f"=={lock()[canonicalize_name(requirement.name)]}"


def test_setup_describes_what_settings_say():
    "The metadata pip sees, from the installed (editable) distribution."
    metadata = importlib.metadata.metadata("speciarl")
    assert metadata["Version"] == settings()["version"] and metadata["Requires-Python"] == ">=3.11"
    assert set(metadata.get_all("Provides-Extra")) == EXTRAS.keys()
    listed = {extra: set() for extra in [None, *EXTRAS]}
    for requirement in map(Requirement, importlib.metadata.requires("speciarl")):
        extra = re.search(r'extra == "(\w+)"', str(requirement.marker))
        listed[extra and extra[1]].add((requirement.name, requirement.specifier))
    base = {(r.name, r.specifier) for r in requirements()}
    assert listed[None] == base
    for extra, parts in EXTRAS.items():
        assert listed[extra] == {(r.name, r.specifier) for r in requirements(*parts)} - base


def test_tools_and_package_do_not_fight_over_the_metadata():
    import tomllib

    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "project" not in pyproject and "setuptools" not in pyproject["tool"]
    assert pyproject["build-system"]["build-backend"] == "setuptools.build_meta"


def test_licence_and_type_marker_are_there():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Copyright 2026 The speciarl developers" in text
    assert (ROOT / "speciarl" / "py.typed").exists()


MODULES = {
    ".".join(path.relative_to(ROOT / "speciarl").with_suffix("").parts)
    for path in (ROOT / "speciarl").rglob("*.py")
    if path.stem[0] != "_"
}


@pytest.mark.parametrize("module", sorted(MODULES - NEEDS_TORCH))
def test_light_modules_do_not_import_the_heavy_libraries(module):
    heavy = ["torch", "transformers", "trl", "peft", "datasets", "pandas", "papermill", "matplotlib.pyplot"]
    code = f"import sys, json, speciarl.{module}; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert json.loads(out) == []


PAPER = sorted((ROOT / "nbs" / "paper").glob("*.ipynb"))


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_reading_results_loads_no_model_library(path):
    "Whatever a paper notebook imports outside a block of its own: no torch, and nothing that trains or samples."
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    imports = []
    for cell in cells:
        tree = ast.parse(re.sub(r"^(\s*)[!%].*", r"\1pass", cell, flags=re.MULTILINE))
        imports += [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert any("speciarl" in line for line in imports)
    heavy = ["torch", "transformers", "trl", "peft", "datasets", "accelerate"]
    imports += ["import json, sys", f"print(json.dumps([name for name in {heavy} if name in sys.modules]))"]
    out = subprocess.run(
        [sys.executable, "-c", "\n".join(imports)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert json.loads(out.stdout) == []
