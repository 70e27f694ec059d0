"Tables in, tables out: every kind of table is judged and scored alike and comes back as what it was."

import csv
import json

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import speciarl
from speciarl import UserError
from speciarl.report.face import table_rows

ROWS = [
    {"label": "Border Terrier", "answer": "border terrier", "note": 1},
    {"label": "Border Terrier", "answer": "terrier", "note": 2},
    {"label": "Border Terrier", "answer": "dog", "note": 3},
    {"label": "Border Terrier", "answer": "Persian cat", "note": 4},
    {"label": "Border Terrier", "answer": None, "note": 5},
]
LEVELS = ["specific", "less specific", "generic", "wrong", "wrong"]
KINDS = [pd.DataFrame, pl.DataFrame, pa.Table.from_pylist, list]


@pytest.mark.parametrize("make", KINDS)
def test_a_table_comes_back_as_what_it_was(make):
    table = make(ROWS)
    judged = speciarl.judge(table, dataset="pets")
    assert type(judged) is type(table)
    rows = table_rows(judged)
    assert [row["category"] for row in rows] == LEVELS and [row["note"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[4]["source"] == "format", "NaN and None are no answer"


@pytest.mark.parametrize("make", KINDS)
def test_every_kind_scores_as_its_file_does(make, tmp_path):
    judged = speciarl.judge(make(ROWS), dataset="pets")
    with open(tmp_path / "verdicts.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["label", "answer", "note", "category", "source", "reason"])
        writer.writeheader()
        writer.writerows(speciarl.judge(ROWS, dataset="pets"))
    theirs, ours = speciarl.score(tmp_path / "verdicts.csv"), speciarl.score(judged)
    assert str(ours.table().rows) == str(theirs.table().rows)
    assert ours.lines[0].scores.correctness == 0.6 and "| all |" in ours._repr_markdown_()


def test_a_judge_of_ones_own_and_a_file():
    said = speciarl.judge(ROWS, judge=speciarl.TreeJudge({"pets": speciarl.load_tree("pets")}))
    assert [row["category"] for row in said] == LEVELS


@pytest.mark.parametrize(
    "table, message",
    [
        ([("border terrier", "dog")], "a table is wanted: a pandas or polars frame, an Arrow table, a list of dicts"),
        (42, "not int"),
        (
            [{"label": "pug", "text": "dog"}],
            "the table: no column 'answer' (found 'label', 'text'); name it with answer_column=",
        ),
        ("nowhere.csv", "nowhere.csv"),
    ],
)
def test_what_is_no_table_is_told_in_one_line(table, message):
    with pytest.raises(UserError) as caught:
        speciarl.judge(table)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_that_nobody_judged_is_not_scored():
    with pytest.raises(UserError, match=r"no column 'category' .* name it with category_column=, .* speciarl\.judge"):
        speciarl.score(ROWS)
    for table in ([], pd.DataFrame({"category": []})):
        with pytest.raises(UserError, match=r"nothing to score: .* speciarl\.judge makes it"):
            speciarl.score(table)


def test_the_levels_are_drawn():
    figure = speciarl.plot(speciarl.score(speciarl.judge(ROWS, dataset="pets")))
    assert figure.axes[0].get_xlabel()


def judged_rows(*levels, **more):
    return [{"image": f"{i}.jpg", "label": "pug", "category": level, **more} for i, level in enumerate(levels)]


A = judged_rows("specific", "generic", "wrong", "generic", dataset="pets")
B = judged_rows("specific", "specific", "wrong", "less specific", dataset="pets")


def test_scores_of_a_table_in_memory_are_written_with_a_record_of_its_rows(tmp_path):
    report = speciarl.score(A)
    report.write(tmp_path / "scores")
    assert {path.name for path in (tmp_path / "scores").iterdir()} == set(report.files())
    recorded = [json.loads((tmp_path / "scores" / "scores.json").read_text())["inputs"]["verdicts"]]
    for number, rows in enumerate((A, B)):
        speciarl.score(rows).write(tmp_path / str(number))
        recorded.append(json.loads((tmp_path / str(number) / "scores.json").read_text())["inputs"]["verdicts"])
    assert recorded[0] == recorded[1] != recorded[2]


def test_scores_come_as_text_and_as_figures():
    report = speciarl.score([*A, {**A[0], "dataset": "birds"}], by="dataset")
    assert report.table().columns[:3] == ["group", "answers", "n"]
    assert report.table("markdown") == str(report.table()) and report.table("markdown").startswith("| group |")
    assert report.table("latex").startswith("\\begin{table}")
    assert report.table("csv").startswith("group,answers,n,S,S low,S high,") and "<table>" in report.table("html")
    assert "<table>" in report._repr_html_() and repr(report).startswith("| group |")
    assert "%" in report.plot().axes[0].get_xlabel()
    assert report.plot("plane").axes[0].get_xlabel() == speciarl.plot(report, "plane").axes[0].get_xlabel()
    assert report.plot("plane").axes[0].get_xlabel() == "specificity S (0 to 1)"


def test_a_comparison_comes_as_text_and_as_figures():
    report = speciarl.compare(A, B, names=("before", "after"))
    assert report.images == 4 and [row["run"] for row in report.scores] == ["before", "after"]
    assert report.scores[0]["C"][0] == 0.75 and report.scores[0]["levels"]["generic"] == 0.5
    assert report.table().rows[1][0] == "after" and report.table("csv").startswith("run,answers,images,S,S low")
    assert (
        report.table("latex", of="tests").startswith("\\begin{table}")
        and "McNemar" in report.table(of="mcnemar").caption
    )
    assert report._repr_html_().count("<table>") == 3 and repr(report).startswith("4 images\n")
    assert report.plot("plane").axes[0].get_xlabel() == "specificity S (0 to 1)"
    assert [text.get_text() for text in speciarl.plot(report).axes[0].get_yticklabels()] == ["before", "after"]


@pytest.mark.parametrize("make", KINDS)
def test_frames_and_files_are_compared_with_each_other(make, tmp_path):
    pd.DataFrame(B).to_csv(tmp_path / "b.csv", index=False)
    report = speciarl.compare(make(A), tmp_path / "b.csv")
    assert [row["run"] for row in report.scores] == ["table 1", "b"]
    assert report.tests == speciarl.compare(A, B, names=("table 1", "b")).tests


def test_rows_are_paired_by_place_only_where_that_is_asked_for():
    nameless = [[{"label": row["label"], "category": row["category"]} for row in rows] for rows in (A, B)]
    with pytest.raises(UserError, match=r"no column 'sample_id' .*; to compare tables .* same order there is by_row="):
        speciarl.compare(*nameless)
    assert speciarl.compare(*nameless, by_row=True).tests == speciarl.compare(A, B).tests
    nameless[1][0] = {**nameless[1][0], "label": "beagle"}
    with pytest.raises(UserError, match="different labels for image 'row 1'"):
        speciarl.compare(*nameless, by_row=True)
    with pytest.raises(UserError, match="several answers to a sample cannot be paired by row"):
        speciarl.compare(
            *[[{**row, "rollout": 0, "sample_id": "a"} for row in rows[:1]] for rows in nameless], by_row=True
        )


MUSHROOMS = """\
@dataset mushrooms
@title Mushrooms
@domain mushroom
agaric
  Amanita
    * fly agaric | Amanita muscaria
    * death cap
"""


def answers(*texts):
    return [{"uid": str(i), "label": "fly agaric", "answer": text} for i, text in enumerate(texts)]


def test_answers_without_verdicts_are_judged_before_they_are_compared(tmp_path, caplog):
    birds = [{"uid": "0", "label": "hooded warbler", "answer": answer} for answer in ("warbler", "bird")]
    report = speciarl.compare(birds[:1], [{**birds[1], "uid": "0"}])
    assert [row["levels"]["less specific"] for row in report.scores] == [1, 0] and report.images == 1
    assert "table 1: no verdicts in it, so its 1 answers are judged by the packaged label trees" in caplog.text
    (tmp_path / "my.tree").write_text(MUSHROOMS)
    ours, theirs = answers("Amanita muscaria", "agaric", "bay bolete"), answers("amanita", "agaric", "death cap")
    caplog.clear()
    report = speciarl.compare(ours, theirs, tree=tmp_path / "my.tree")
    assert [row["undecided"] for row in report.scores] == [pytest.approx(1 / 3), 0]
    assert f"judged by the label tree {tmp_path}/my.tree; no verdict on 1 (1 undecided)" in caplog.text


def test_a_tree_is_for_answers_without_verdicts(tmp_path):
    (tmp_path / "my.tree").write_text(MUSHROOMS)
    pair = answers("amanita"), answers("agaric")
    judged = speciarl.judge(pair[0], tree=tmp_path / "my.tree")
    with pytest.raises(UserError, match=r"^table 1: it holds verdicts already; judge it again with the tree first"):
        speciarl.compare(judged, pair[1], tree=tmp_path / "my.tree")
    with pytest.raises(
        UserError, match=r"^table 1: label 'fly agaric' is no class of any tree; .* make a tree"
    ) as told:
        speciarl.compare(*pair)
    assert told.value.exit_code == 1
    with pytest.raises(UserError, match=r"^no label tree 'no\.tree'"):
        speciarl.compare(*pair, tree="no.tree")


def test_tables_of_different_judges_are_not_compared(tmp_path):
    pairs = pd.DataFrame({"uid": ["a"], "dataset": ["oxford_pets"], "label": ["beagle"], "answer": ["a quux"]})
    pairs.to_csv(tmp_path / "pairs.csv")
    for name, more in (("lenient", ""), ("strict", "--strict")):
        from speciarl.cli.app import run

        assert run(f"judge '{tmp_path}/pairs.csv' --out '{tmp_path}/{name}.csv' {more}") == 0
    with pytest.raises(UserError, match="lenient and strict were judged by different judges"):
        speciarl.compare(tmp_path / "lenient.csv", tmp_path / "strict.csv")


@pytest.mark.parametrize(
    "call, told",
    [
        (lambda: speciarl.judge(ROWS, blank="nan"), "blank='nan': a list of words is wanted, such as ['nan']"),
        (lambda: speciarl.judge(ROWS, "taxonomy"), "judge='taxonomy': a judge is wanted, such as speciarl.TreeJudge()"),
        (lambda: speciarl.score(A, by=["dataset"]), "by: one word is wanted, not list ['dataset']"),
        (lambda: speciarl.score(A, weights={"generic": 1}), "weights: one word is wanted, not dict"),
        (lambda: speciarl.score(A).table("word"), "no kind of table 'word': use one of markdown, latex, csv, html"),
        (lambda: speciarl.score(A).plot("pie"), "no kind of plot 'pie': use one of levels, plane"),
        (lambda: speciarl.compare([A, B]), "give at least two runs to compare, each by itself"),
        (lambda: speciarl.compare(A), "give at least two runs to compare"),
        (lambda: speciarl.compare(A, B, names="ab"), "names='ab': a list of words is wanted"),
        (lambda: speciarl.compare(A, B, names=["a"]), "names ['a']: give each of the 2 runs one of its own"),
        (lambda: speciarl.compare(A, 42), "a table is wanted: a pandas or polars frame"),
        (
            lambda: speciarl.compare(A, B).table(of="risk"),
            "no table 'risk' in this comparison: use one of scores, tests",
        ),
        (lambda: speciarl.plot(A), "plot: what speciarl.score or compare returned is wanted, not list"),
        (lambda: speciarl.TreeJudge()(pd.DataFrame(ROWS)), "a list of (label, answer) is wanted, not DataFrame"),
        (lambda: speciarl.TreeJudge()("pug"), "a list of (label, answer) is wanted, not str"),
        (lambda: speciarl.TreeJudge()([("pug", float("nan"))]), "pair 1 is ('pug', nan): (label, answer) is wanted"),
        (lambda: speciarl.TreeJudge()(["pug"]), "pair 1 is pug: (label, answer) is wanted, both text"),
    ],
)
def test_a_bad_argument_is_told_in_one_line(call, told):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value)
