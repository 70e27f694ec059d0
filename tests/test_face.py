"Tables in, tables out: every kind of table is judged and scored alike and comes back as what it was."

import csv

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
