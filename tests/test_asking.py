"speciarl.evaluate and speciarl.show: what the command line does, from Python."

import inspect
import json

import pandas as pd
import polars as pl
import pytest
from PIL import Image

import speciarl
from speciarl import UserError
from speciarl.cli import asking as command
from speciarl.cli.app import run
from speciarl.data.samples import Sample
from speciarl.report.scores import ScoreReport


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (56, 56), "tan").save(folder / name)
    (folder / "labels.csv").write_text("file,label\na.png,beagle\nb.png,pug\n")
    return folder


@pytest.fixture(scope="module")
def evaluated(photos):
    return speciarl.evaluate("fieldguide-base", photos, photos.parent / "called")


def test_a_call_makes_the_run_that_the_command_makes(photos, evaluated):
    there = photos.parent / "commanded"
    assert run(f"evaluate --model fieldguide-base --data '{photos}' --out '{there}'") == 0
    here = photos.parent / "called"
    assert {path.name for path in here.iterdir()} == {path.name for path in there.iterdir()}
    for name in ("predictions.parquet", "verdicts.csv", "samples.csv", "scores.csv"):
        assert (here / name).read_bytes() == (there / name).read_bytes(), name
    cards = [json.loads((folder / "card.json").read_text()) for folder in (here, there)]
    assert cards[0] == cards[1]
    assert run(f"evaluate --model fieldguide-base --data '{photos}' --out '{here}'") == 0, "the command goes on there"


def test_a_call_has_the_words_and_defaults_of_the_command():
    theirs = inspect.signature(command.evaluate).parameters
    ours = inspect.signature(speciarl.evaluate).parameters
    called = {"judge_name": "judge", "image_column": None, "label_column": None, "dataset_column": None, "matrix": None}
    for name, parameter in theirs.items():
        word = called.get(name, name)
        if word and name != "out":
            assert ours[word].default == parameter.default, name


def test_what_a_call_returns_shows_itself(evaluated):
    assert isinstance(evaluated, ScoreReport) and evaluated.lines[-1].scores.n == 2
    page = speciarl.show(evaluated)
    assert page.path == evaluated.source.parent / "page" / "index.html" and page.path.is_file()
    assert page._repr_html_().count("data:image/jpeg") == 2 and repr(page) == f"wrote {page.path}"
    assert speciarl.show(evaluated.source.parent).path == page.path


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, list])
def test_pictures_may_be_named_by_a_table_or_be_samples(photos, make, tmp_path):
    rows = [{"file": str(photos / "a.png"), "label": "beagle"}, {"file": str(photos / "b.png"), "label": "pug"}]
    report = speciarl.evaluate("fieldguide-base", make(rows), tmp_path / "run", limit=1)
    assert report.lines[-1].scores.n == 1
    samples = [Sample("1", photos / "a.png", "beagle")]
    assert speciarl.evaluate("fieldguide-base", samples, tmp_path / "other").lines[-1].scores.n == 1


def test_published_predictions_are_judged_again(evaluated, tmp_path):
    report = speciarl.evaluate(predictions=evaluated.source, out=tmp_path / "strict", strict=True)
    assert report.lines[-1].undecided == 0
    assert speciarl.compare(evaluated.source, tmp_path / "strict" / "verdicts.csv").images == 2


def test_the_tree_beside_the_data_judges(photos, tmp_path, caplog):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (56, 56), "tan").save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "labels.csv").write_text("file,label\na.png,zorb\n")
    with pytest.raises(UserError, match="label that no tree holds"):
        speciarl.evaluate("fieldguide-base", tmp_path / "photos", tmp_path / "run")
    (tmp_path / "taxonomy.csv").write_text("family,species\nzorbs,zorb\nzorbs,blorb\n")
    line = f"tree from-table '{tmp_path}/taxonomy.csv' --domain creature --out '{tmp_path}/photos/labels.tree'"
    assert run(line) == 0
    speciarl.evaluate("fieldguide-base", tmp_path / "photos", tmp_path / "run")
    assert "labels are judged by" in caplog.text


@pytest.mark.parametrize(
    "given, told",
    [
        ({}, "say what to evaluate: model and data, or predictions"),
        ({"model": "fieldguide-base"}, "say what to evaluate"),
        ({"model": "fieldguide-base", "data": "nowhere"}, "no data set 'nowhere' and no such folder"),
        ({"model": "fieldguide-base", "data": 42}, "a table is wanted"),
        ({"model": "fieldguide-base", "data": "birds", "limit": 0}, "limit=0: must be at least 1"),
        ({"model": "fieldguide-base", "data": "birds", "limit": 1, "n": 0}, "n and max_tokens must be at least 1"),
        ({"model": "fieldguide-base", "data": "birds", "judge": "oracle"}, "unknown judge 'oracle': use one of"),
        ({"model": "fieldguide-base", "data": "birds", "judge": 42}, "judge: taxonomy, llm, cascade or a judge"),
        ({"model": "fieldguide-base", "data": "birds", "judge": "llm"}, "needs its server and its name: judge_url="),
        ({"model": pd.DataFrame(), "data": "birds", "limit": 1}, "model: a model's folder or id is wanted"),
        ({"model": "m", "data": "birds", "limit": 1, "request": {"top_k": 1}}, "use it with engine='openai'"),
        ({"model": "m", "data": "birds", "limit": 1, "engine": "magic"}, "unknown engine 'magic': use one of"),
        ({"model": "m", "data": "birds", "judge_request": "top_k=1"}, "judge_request='top_k=1': a list of words"),
    ],
)
def test_what_cannot_be_evaluated_is_told_in_one_line(given, told, tmp_path):
    with pytest.raises(UserError) as caught:
        speciarl.evaluate(**given, out=tmp_path / "run")
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_call_needs_a_folder():
    with pytest.raises(UserError, match="^out: say in which folder"):
        speciarl.evaluate("fieldguide-base", "birds")


ANSWERS = [{"uid": "a", "label": "beagle", "answer": "dog", "category": "generic"}]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, list])
def test_answers_of_somebody_else_are_shown_with_a_folder_of_pictures(make, photos, tmp_path):
    page = speciarl.show(make(ANSWERS), tmp_path / "page", images=photos)
    [(entry, thumbnail)] = page.entries
    assert (entry.sample_id, entry.label, thumbnail.fault) == ("a", "beagle", None)
    named = [{"picture": "a.png", **{name: value for name, value in ANSWERS[0].items() if name != "uid"}}]
    columns = {"image": "picture", "sample_id": "picture"}
    page = speciarl.show(named, tmp_path / "page", images=photos, columns=columns)
    assert page.entries[0][1].fault is None


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: speciarl.show(ANSWERS), "out: a table that is no file lies in no folder"),
        (lambda: speciarl.show(ANSWERS, "page", limit=0), "limit=0: must be at least 1"),
        (lambda: speciarl.show(ANSWERS, "page", images="nowhere"), "nowhere: no such folder; give the one that holds"),
        (lambda: speciarl.show([{"label": "pug"}], "page"), "the table: no column 'category'"),
        (lambda: speciarl.show(42, "page"), "a table is wanted: a pandas or polars frame"),
        (lambda: speciarl.show("nowhere"), "nowhere: no such file"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(call, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
