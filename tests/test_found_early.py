"""What can be known before the first answer is asked for, or the model loaded, is found out then: labels, trees,
judges, trackers, room on the disk."""

import shutil
from pathlib import Path

import pytest
import torch
from command_line import call, ok, refused
from judge_server import judge_server, judge_server_process  # noqa: F401 - fixtures
from policy_server import policy_server  # noqa: F401 - a fixture

from speciarl.core.files import read_json, write_csv
from speciarl.core.scale import UserError
from speciarl.data.fieldguide import plates
from speciarl.data.samples import Sample
from speciarl.data.trees import load_trees
from speciarl.judges.tree import TreeJudge
from speciarl.policy.judged import check_judgeable
from speciarl.policy.model import PACKAGED, load_policy
from speciarl.training import loop


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    (tmp_path / "photos").mkdir()
    for number, plate in enumerate(plates("birds", "test", 4)):
        plate.image.save(tmp_path / "photos" / f"{number}.png")
    label()
    return tmp_path / "photos"


def label(*labels, dataset="birds"):
    names = [*labels, *["ovenbird"] * (4 - len(labels))]
    rows = [[f"{i}.png", name, dataset] for i, name in enumerate(names)]
    write_csv("photos/labels.csv", ["file", "label", "dataset"], rows)


@pytest.fixture
def unloaded(monkeypatch):
    "Whoever loads a model or asks a server in this test fails."

    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(loop, "load_policy", load)
    monkeypatch.setattr("speciarl.policy.model.load_policy", load)


ASK = ("evaluate", "--model", "fieldguide-base", "--data", "photos", "--out", "run")


@pytest.mark.parametrize("judge", ["taxonomy", "llm"])
def test_a_label_in_no_tree_is_refused_before_the_model_is_loaded(photos, unloaded, judge_server, judge):
    label("ovenbird", "ovenbrid", "quuxbird")
    more = () if judge == "taxonomy" else ("--judge-url", judge_server.url, "--judge-model", "judge")
    line = refused(*ASK, "--judge", judge, *more) if judge == "taxonomy" else call(*ASK, "--judge", judge, *more).stderr
    assert (
        "2 of 3 labels are not in the label tree of their data set ('ovenbrid' is not in birds; near it are ovenbird"
    ) in line
    assert line.strip().endswith("); correct the label or the data set") and not Path("run").exists()


def test_a_server_is_not_asked_either_and_the_mended_labels_are(photos, policy_server):
    ask = (*ASK, "--engine", "openai", "--base-url", policy_server.url)
    ask = tuple("policy" if part == "fieldguide-base" else part for part in ask)
    label("quuxbird")
    refused(*ask)
    assert policy_server.calls == 0
    label()
    ok(*ask)
    assert policy_server.calls == 4


def test_an_unknown_data_set_is_refused_before_the_model_is_loaded(photos, unloaded):
    label(dataset="unicorns")
    assert refused(*ASK).startswith("unknown data set 'unicorns': use one of")


def test_labels_that_only_some_judge_knows_are_told(photos, unloaded, caplog):
    judge = TreeJudge(load_trees())
    samples = [Sample(str(i), Path("x"), name) for i, name in enumerate(["ovenbird", "a quux", "a quux"])]
    check_judgeable(samples, judge)
    assert caplog.messages == [
        "2 of 3 pictures have a label that no tree holds ('a quux') and will get no verdict; correct the labels, name "
        "their data set, make a tree of them (speciarl tree from-table TAXONOMY.csv --out MY.tree), or let a language "
        "model judge (--judge llm)"
    ]
    with pytest.raises(UserError, match=r"2 of 2 pictures have a label that no tree holds \('a quux'\), so no answer"):
        check_judgeable(samples[1:], judge)
    check_judgeable(samples[1:], object())


def test_a_matrix_is_looked_at_as_a_whole_before_its_first_run(photos, unloaded):
    label("quuxbird")
    Path("m.yaml").write_text("models: [fieldguide-base]\nlimit: 3\ndata: [birds, photos]\n")
    assert refused("evaluate", "--matrix", "m.yaml", "--out", "runs").startswith(
        "photos: 1 of 2 labels are not in the label tree of their data set ('quuxbird' is not in birds"
    )
    assert not Path("runs").exists()


def test_a_judge_that_is_not_there_is_found_out_before_the_model_is_loaded(photos, unloaded, judge_server):
    where = ("--judge", "llm", "--judge-url", judge_server.url)
    assert refused(*ASK, *where, "--judge-model", "nobody").startswith("the server has no model 'nobody'; it has ")
    judge_server.set(key="s3cret")
    assert "check the API key" in refused(*ASK, *where, "--judge-model", "judge")
    assert not Path("run").exists()


def test_a_disk_without_room_is_found_out_before_the_model_is_loaded(photos, unloaded, monkeypatch):
    usage = shutil.disk_usage(photos)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    line = "{}: about 0.01 GB are needed and 0.00 GB are free there; make room, or choose another --out"
    assert refused(*ASK) == line.format("run")
    closed = ("closed", "--model", "fieldguide-base", "--data", "photos", "--out", "closed")
    assert refused(*closed) == line.format("closed")
    assert refused("rationales", "--data", "birds", "--marks", "--limit", 2, "--out", "r.jsonl") == line.format(
        "r.jsonl"
    )
    assert refused("train", "smoke/speciarl", "--out", "trained").startswith("trained: about 0.")
    assert sorted(path.name for path in Path().iterdir()) == ["photos"]


# Training

TRAIN = ("train", "smoke/speciarl", "--set", "data.birds=8", "--out", "trained")


@pytest.mark.parametrize(
    "name, told",
    [
        ("tensorbord", "no tracker 'tensorbord': did you mean tensorboard? Else use one of azure_ml, "),
        ("WANDB", "no tracker 'WANDB': did you mean wandb? Else use one of "),
        ("trackio", "the tracker trackio needs a package that is not installed: pip install trackio, or leave out"),
        ("wandb", "the tracker wandb needs a package that is not installed: pip install wandb, or leave out"),
    ],
)
def test_a_tracker_that_is_not_there_is_one_line_before_the_model_is_loaded(photos, unloaded, monkeypatch, name, told):
    from transformers.integrations import integration_utils

    monkeypatch.setattr(integration_utils, f"is_{name}_available", lambda: False, raising=False)
    assert refused(*TRAIN, "--report-to", name).startswith(told)
    assert not Path("trained").exists()


def test_held_out_pictures_are_looked_for_before_the_model_is_loaded(photos, unloaded, monkeypatch):
    def gone(*_):
        raise UserError("the held-out pictures are gone")

    monkeypatch.setattr("speciarl.training.loop.validation_samples", gone)
    assert refused(*TRAIN) == "the held-out pictures are gone"


def test_rationales_about_other_samples_are_found_out_before_the_model_is_loaded(photos, unloaded):
    ok("rationales", "--data", "pets", "--marks", "--limit", 2, "--out", "r.jsonl")
    Path("r.jsonl").write_text(Path("r.jsonl").read_text().replace('"pets-', '"other-'))
    line = refused("train", "smoke/cot", "--out", "trained", "--rationales", "r.jsonl")
    assert "there is no rationale for any of the" in line and not Path("trained").exists()


def test_an_unfinished_training_run_is_held_to_its_base(photos, monkeypatch):
    shutil.copytree(PACKAGED["fieldguide-base"], "base")
    again = (*TRAIN[:2], "--set", "policy=base", *TRAIN[2:])

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("speciarl.training.loop.train_once", killed)
        call(*again)
    assert set(read_json("trained/recipe.json")["base"]) == {"weights", "processor"}
    policy = load_policy("base", device="cpu")
    with torch.no_grad():
        next(policy.model.parameters()).add_(0.01)
    policy.model.save_pretrained("base")
    line = refused(*again)
    assert line.startswith("trained holds an unfinished run on another base under the same name (weights was ")
