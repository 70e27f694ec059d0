"""How the package is built: rooms, imports, sizes, and cells that show what they define. Each rule is read from the
notebooks and the modules."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from make_links import LIBRARY, ROOT, module_of

PACKAGE = ROOT / "speciarl"
MODULES = {
    "speciarl." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.glob("*/*.py"))
    if path.stem != "__init__"
}
library = pytest.mark.parametrize("path", LIBRARY, ids=module_of)
every_module = pytest.mark.parametrize("name", MODULES)


def is_exported(cell) -> bool:
    return cell.cell_type == "code" and re.match(r"#\s*\|\s*exports?\b", cell.source) is not None


def is_hidden(cell) -> bool:
    return re.match(r"#\s*\|\s*(hide|default_exp)\b", cell.source) is not None


def defines(cell) -> bool:
    "Whether a cell defines a function or a class; imports and constants need no demonstration."
    tree = ast.parse(re.sub(r"^#\|.*", "", cell.source, flags=re.MULTILINE))
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in tree.body)


@every_module
def test_a_module_has_at_most_450_lines(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= 450


def longest_row(path: Path) -> int:
    "The most exported cells with definitions that stand in a row without a cell that shows one of them at work."
    row, longest = 0, 0
    for cell in nbformat.read(path, as_version=4).cells:
        if is_exported(cell):
            row += defines(cell)
            longest = max(longest, row)
        elif cell.cell_type == "code" and not is_hidden(cell):
            row = 0
    return longest


@library
def test_at_most_three_exported_cells_stand_in_a_row_without_a_shown_use(path):
    assert longest_row(path) <= 3


def private_names(tree: ast.AST) -> Iterator[str]:
    "Private names of other modules of the package that a module takes: imported, or read from an imported module."
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.level > 0 or (node.module or "").startswith("speciarl")):
            for alias in node.names:
                modules[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
                if alias.name.startswith("_") and not alias.name.startswith("__"):
                    yield f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            is_module = f"speciarl{'.' + modules[node.value.id].lstrip('.')}" in MODULES
            if is_module and node.attr.startswith("_") and not node.attr.startswith("__"):
                yield f"{modules[node.value.id]}.{node.attr}"


@every_module
def test_no_module_takes_a_private_name_of_another(name):
    assert list(private_names(ast.parse(MODULES[name].read_text(encoding="utf-8")))) == []


@every_module
def test_no_class_is_a_ladder(name):
    "A class that is nothing but the base of one other class of its module is that class cut in two."
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    used = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
    based = Counter(base.id for node in classes.values() for base in node.bases if isinstance(base, ast.Name))
    rungs = [base for base, count in based.items() if base in classes and count == 1 and used[base] == 1]
    assert rungs == []


def test_importing_the_package_is_light_and_quick():
    code = (
        "import time, sys; t = time.perf_counter(); import speciarl; s = time.perf_counter() - t; import json; "
        "print(json.dumps([s, sorted(sys.modules)]))"
    )
    found = [
        json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    for heavy in ("torch", "transformers", "trl", "pandas", "numpy", "matplotlib", "pydantic"):
        assert heavy not in found[0][1]
    assert min(seconds for seconds, _ in found) < 0.3


def test_every_name_of_the_public_face_is_there():
    code = "import speciarl; print([name for name in speciarl.__all__ if getattr(speciarl, name).__doc__ is None])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("room", ["data", "metrics", "report", "training"])
def test_every_public_name_of_a_room_is_there(room):
    code = f"import speciarl.{room} as room; print([name for name in room.__all__ if not hasattr(room, name)])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "[]\n"


@pytest.mark.parametrize(
    "old, name",
    [
        ("reward", "reward"),
        ("adapters", "SpecificityReward"),
        ("labels", "load_tree"),
        ("tree_judge", "TreeJudge"),
        ("metrics", "tally"),
        ("metrics", "resample"),
    ],
)
def test_old_imports_work_for_one_release_with_a_warning(old, name, tmp_path):
    code = (
        f"import warnings; warnings.simplefilter('error', DeprecationWarning); import speciarl.{old} as old; old.{name}"
    )
    strict = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    for part in ("DeprecationWarning", f"speciarl.{old}", "use speciarl."):
        assert part in strict.stderr
    script = tmp_path / "mine.py"
    script.write_text(f"from speciarl.{old} import {name}\nprint(callable({name}))\n")
    plain = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert plain.stdout == "True\n" and "mine.py:1: DeprecationWarning" in plain.stderr, (
        "the reader's own line is named"
    )
