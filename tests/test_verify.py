"""Committed results against those made again, and against retrained ones."""

import json
import re
import shutil
import subprocess

import miniature
import pytest
from miniature import PARAMETERS, WRITE, notebook
from refusal import message
from typer.testing import CliRunner

from speciarl.cli.app import app
from speciarl.compendium import audit as module
from speciarl.compendium.audit import committed, outside, unequal, verify
from speciarl.compendium.reproduce import reproduce

VALUES = "paper/tables/smoke/count.values.json"


def git(root, *words):
    subprocess.run(
        ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A miniature project whose results are committed, and published predictions that no notebook of it needs."
    root = miniature.project(tmp_path_factory.mktemp("verify") / "a project")
    notebook(
        root / "nbs/paper/1_count.ipynb",
        PARAMETERS,
        WRITE.format(stem="count", values={"plates": 48, "HM": 0.8, "HM.low": 0.7, "HM.high": 0.9}),
    )
    reproduce("smoke", root=root)
    git(root, "init")
    git(root, "add", "-f", "nbs", "paper/tables", "paper/paper.md", "paper/manifest.yaml")
    git(root, "commit", "-m", "results")
    return root


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    def again(profile, *, root, out, published, workers):
        "Stands for the engine, which is tested elsewhere: what was made at first is made again."
        shutil.copytree(finished / "paper/tables", out / "paper/tables", dirs_exist_ok=True)

    monkeypatch.setattr(module, "reproduce", again)
    return shutil.copytree(finished, tmp_path / "a project", symlinks=True)


def test_all_agrees(project, capsys):
    (project / "paper/predictions/smoke").mkdir(parents=True)
    assert verify("smoke", root=project) == []
    assert capsys.readouterr().out.splitlines() == [
        "made again from paper/predictions/smoke: 2 of 2 committed files are the same to the byte",
        f"not retrained: the results in {project} are those committed",
    ]


def test_differences_are_lines(project, monkeypatch, capsys):
    (project / "paper/predictions/smoke").mkdir(parents=True)

    def other(profile, *, root, out, published, workers):
        (out / "paper/tables/smoke").mkdir(parents=True)
        (out / VALUES).write_text('{"plates": 49}')
        (out / "paper/tables/smoke/more.csv").write_text("a\n")

    monkeypatch.setattr(module, "reproduce", other)
    assert verify("smoke", root=project) == [
        f"{VALUES} is not what is committed: line 1",
        "paper/tables/smoke/share.values.json is committed and was not made",
        "paper/tables/smoke/more.csv was made and is not committed",
    ]
    assert "0 of 2 committed files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("here", "lines"),
    [
        ('{"plates": 50, "HM": 0.89}', []),
        ('{"plates": 48, "HM": 0.91}', ["count.HM is 0.91 here, outside the committed interval 0.7 to 0.9"]),
        ('{"plates": 48}', ["count.HM: committed as 0.8, and not made here"]),
    ],
)
def test_retrained_results_lie_within_the_committed_intervals(project, capsys, here, lines):
    (project / VALUES).write_text(
        here.replace("0.89}", '0.89, "HM.low": 0.6, "HM.high": 1.0}').replace(
            "0.91}", '0.91, "HM.low": 0.6, "HM.high": 1.0}'
        )
    )
    assert verify("smoke", root=project) == lines
    assert (
        capsys.readouterr().out.splitlines()[1]
        == f"results in {project}: {1 - len(lines)} of 1 values lie within the committed intervals"
    )


def test_tables_count_too(tmp_path):
    before = {"paper/tables/smoke/t.csv": b"method,group,HM,HM low,HM high,published\nA,x,0.5,0.4,0.6,\nA,y,,,,0.8\n"}
    (tmp_path / "paper/tables/smoke").mkdir(parents=True)
    (tmp_path / "paper/tables/smoke/t.csv").write_bytes(
        b"method,group,HM,HM low,HM high,published\nA,x,0.3,0.2,0.6,\nA,y,,,,0.8\n"
    )
    assert outside(before, tmp_path) == (1, ["t, A / x: HM is 0.3 here, outside the committed interval 0.4 to 0.6"])
    assert unequal({"figures/smoke/a.png": b"\x89abc"}, tmp_path, "laptop") == [
        "figures/smoke/a.png is committed and was not made"
    ]


def test_nothing_to_compare(project, tmp_path):
    assert (
        message(verify, "laptop", root=project)
        == "no results of profile laptop are committed here; those of laptop are: speciarl reproduce --verify "
        "--profile laptop"
    )
    assert message(verify, "smoke", root=project, out=tmp_path / "elsewhere") == (
        "nothing to compare the last commit with: no predictions in paper/predictions/smoke, and nothing was "
        f"retrained in {tmp_path / 'elsewhere'}"
    )


def test_without_git_the_files_themselves_count(project):
    shutil.rmtree(project / ".git")
    found, where = committed(project, "smoke")
    assert sorted(found) == [VALUES, "paper/tables/smoke/share.values.json"] and where == f"the files in {project}"


def test_on_the_command_line(project, monkeypatch):
    monkeypatch.chdir(project / "nbs")
    call = lambda *words: CliRunner().invoke(app, ["reproduce", "--verify", "--profile", "smoke", *words])
    good = call()
    assert (
        good.exit_code == 0
        and good.stdout.splitlines()[-1] == "the results of profile smoke agree with what is committed"
    )
    (project / VALUES).write_text("{}")
    bad = call()
    assert bad.exit_code == 1 and bad.stderr == "error: count.HM: committed as 0.8, and not made here\n"
    refused = call("--plan")
    assert refused.exit_code == 2 and refused.stderr == (
        "error: --verify makes everything again from the published predictions: leave out --only, --plan, --force, "
        "--from-predictions and --publish\n"
    )


def test_what_was_published_stands_for_the_policies(tmp_path, monkeypatch):
    """From the command line: the base policy is asked once; a reader with an empty store draws the same from the
    published answers."""
    root = miniature.project(tmp_path / "a project")
    draw = """from speciarl.compendium.lab import Lab
lab = Lab(profile, "../..", workers=0)
found = {"right": sum(row["category"] == "specific" for row in lab.rows("zero-shot", 0, "cars")),
         "chosen": [made.why for made in lab.closed("zero-shot").choices]}
profile = lab.profile.name"""
    notebook(
        root / "nbs/paper/1_count.ipynb", PARAMETERS, draw, WRITE.format(stem="count", values="{'plates': 48, **found}")
    )
    (root / "nbs/paper/2_share.ipynb").unlink()
    (root / "paper/manifest.yaml").write_text("notebooks:\n  1_count: {values: [count], needs: [zero-shot]}\n")
    (root / "paper/paper.md").write_text("# Mini\n\n{{count.right}} of {{count.plates}}\n")
    (root / "small.yaml").write_text(
        "like: smoke\nablations: []\nfine_r1: {}\ntest_images: 4\nmethods: {zero-shot: {closed: 3}}\n"
    )
    monkeypatch.chdir(root)
    call = lambda *words: CliRunner().invoke(app, ["reproduce", "--profile", "small.yaml", *words])
    assert (
        call("--publish", "mine", "--plan").stderr
        == "error: --publish writes what was computed: leave out --plan and --from-predictions\n"
    )
    first = call("--publish", "mine")
    last = r"\nwrote mine: 3 files, 0\.\d MB\nthe paper: .*paper\.pdf\n$"
    assert first.exit_code == 0 and re.search(last, first.stdout), first.output
    monkeypatch.setattr(module, "reproduce", reproduce)
    again = call("--from-predictions", "mine", "--out", "elsewhere")
    assert again.exit_code == 0, again.output
    assert (root / "elsewhere" / VALUES).read_bytes() == (root / VALUES).read_bytes() and len(
        json.loads((root / VALUES).read_text())["chosen"]
    ) == 3
    assert not list((root / "elsewhere/.speciarl/artefacts").glob("policy-*"))
