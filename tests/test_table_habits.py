"""Tables as other people and their programs write them: one door for all kinds, and nothing in them is an answer that
nobody gave."""

import json
import logging
from inspect import signature

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from refusal import message
from typer.testing import CliRunner

import speciarl
from speciarl.cli import judging
from speciarl.cli.app import app
from speciarl.core.pairs import read_pairs
from speciarl.core.tables import BLANK_WORDS, read_table
from speciarl.judges.verdict import read_verdicts

openpyxl = pytest.importorskip("openpyxl")

HEADER = ["label", "answer", "dataset"]
SHEET = [  # what a sheet holds, and what is to come of it
    (["beagle", "beagle", "pets"], "specific"),
    (["beagle", "", "pets"], "wrong"),
    (["beagle", "N/A", "pets"], "abstain"),
    (["", "dog", ""], None),
    (["", "", ""], None),
    (["beagle", "dog", "pets"], "generic"),
    (["", "", ""], None),
]
LEVELS = [level for _, level in SHEET if level]
CELLS = [cells for cells, _ in SHEET]


def lines(delimiter):
    return "\n".join(delimiter.join(cells) for cells in [HEADER, *CELLS]) + "\n"


def gaps():
    "The rows with None where nothing is."
    return [{name: cell or None for name, cell in zip(HEADER, cells)} for cells in CELLS]


def workbook(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append([cell or None for cell in row])
    last = book.active.cell(len(rows), 1)
    last.value = last.value or " "  # a sheet ends where there is nothing more
    book.save(path)


def write_as(kind, path):
    "The sheet as a file of some kind."
    if kind == "xlsx":
        workbook(path, [[], HEADER, *CELLS])
    elif kind == "parquet":
        pd.DataFrame(gaps()).to_parquet(path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in gaps()))
    else:
        path.write_bytes(
            {
                "comma": lines(",").encode(),
                "semicolon": lines(";").encode(),
                "tab": lines("\t").encode(),
                "sep line": b"sep=;\r\n" + lines(";").replace("\n", "\r\n").encode(),
                "marked": b"\xef\xbb\xbf" + lines(";").encode(),
                "unicode text": lines("\t").replace("\n", "\r\n").encode("utf-16"),
                "big endian": b"\xfe\xff" + lines("\t").encode("utf-16-be"),
                "open columns": lines(";").replace("\n", ";;\n").encode(),
            }[kind]
        )
    return path


KINDS = ["comma", "semicolon", "tab", "sep line", "marked", "unicode text", "big endian", "open columns"]
KINDS += ["xlsx", "parquet", "jsonl"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], prog_name="speciarl")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_comes_to_the_same_verdicts_and_scores(folder, kind):
    path = write_as(kind, folder / "pairs.file")
    judged = call("judge", path, "--out", "verdicts.csv")
    assert judged.exit_code == 0, judged.stderr
    assert "4 pairs judged" in judged.stdout and "1 without an answer: wrong, as faults of format" in judged.stdout
    left, said = judged.stderr.splitlines()
    assert "3 of 7 rows left out: 2 with nothing in them (" in left and "1 without a label (" in left
    assert "1 x answer that stands for nothing ('N/A': " in said and "read as None, an abstention; see --blank" in said
    rows, columns = read_verdicts("verdicts.csv")
    assert [row["category"].wire for row in rows] == LEVELS
    assert columns == [*HEADER, "category", "source", "reason"], "the columns of the table and no others"
    assert json.loads((folder / "verdicts.card.json").read_text())["notes"] == [left, said]
    assert speciarl.score("verdicts.csv").lines[0].scores.correctness == 0.5


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.Table.from_pylist, list])
def test_every_kind_of_table_in_python_does_too(make, caplog):
    table = make(gaps())
    with caplog.at_level(logging.WARNING):
        judged = speciarl.judge(table)
    assert type(judged) is type(table)
    assert [row["category"] for row in read_table(judged).rows] == LEVELS
    assert (
        "the table: 3 of 7 rows left out: 2 with nothing in them (rows 5, 7), 1 without a label (row 4)" in caplog.text
    )
    assert [row["category"] for row in read_table(speciarl.judge(table, empty_answer="abstain")).rows][1] == "abstain"


@pytest.mark.parametrize(
    "missing", [None, float("nan"), pd.NA, pd.NaT, "", "  ", pytest.param("\u00a0", id="no-break space")]
)
def test_what_is_missing_is_empty_whatever_says_so(missing):
    table = pd.DataFrame({"label": ["beagle", missing], "answer": [missing, "dog"]}, dtype=object)
    pairs = read_pairs(table)
    assert [pair["label"] for pair in pairs.texts] == ["beagle"] and not pairs.texts[0]["answer"].strip()
    assert pairs.empty == 1 and "1 of 2 rows left out: 1 without a label (row 2)" in pairs.notes[0]
    assert speciarl.judge([{"label": "beagle", "answer": missing}])[0]["source"] == "format"


@pytest.mark.parametrize("word", ["nan", "NaN", "NA", "N/A", "#N/A", "null", "<NA>", "-", "None", " none "])
def test_a_word_for_nothing_is_an_abstention_and_no_label(word):
    rows = [{"label": "beagle", "answer": word}, {"label": word, "answer": "dog"}, {"label": "beagle", "answer": "dog"}]
    first, last = speciarl.judge(rows)
    assert (first["category"], last["category"]) == ("abstain", "generic")
    assert first["answer"] == word, "the table keeps what was written"


def test_a_thing_that_is_really_called_so_is_a_name(folder):
    (folder / "breads.tree").write_text(
        "@dataset breads\n@title Breads\n@domain food\nbread\n  flatbread\n    * nan | naan\n    * pita\n"
    )
    rows = [{"label": "nan", "answer": "nan"}, {"label": "nan", "answer": "bread"}, {"label": "pita", "answer": "n/a"}]
    tree = str(folder / "breads.tree")
    assert [row["category"] for row in speciarl.judge(rows, dataset=tree)] == ["specific", "generic", "abstain"]
    assert message(speciarl.judge, rows[:2]) == (
        "the table: no row is left: 2 with a label that stands for nothing, see blank= (rows 1, 2); fill the table in"
    )
    pairs = read_pairs(rows, blank=())
    assert [pair["answer"] for pair in pairs.texts] == ["nan", "bread", "n/a"]


def test_the_words_of_the_command_are_those_of_the_library(folder):
    write_as("comma", folder / "pairs.csv")
    help_text = " ".join(call("judge", "--help").stdout.split())
    assert ",".join(BLANK_WORDS).replace(" ", "") in help_text.replace(" ", "")
    assert signature(judging.judge).parameters["blank"].default == ",".join(BLANK_WORDS)
    assert "stands for nothing" not in call("judge", "pairs.csv", "--out", "v.csv", "--blank", "").stderr


def test_blank_rows_of_verdicts_are_no_verdicts(folder):
    (folder / "verdicts.csv").write_text("label;answer;category\nbeagle;dog;generic\n;;\n;;\n")
    result = call("score", "verdicts.csv", "--out", "scores")
    assert result.exit_code == 0
    assert result.stderr == "verdicts.csv: 2 of 3 rows left out: 2 with nothing in them (lines 3, 4)\n"
    scores = speciarl.score("verdicts.csv").lines[0].scores
    assert (scores.n, scores.missing, scores.correctness) == (1, 0, 1.0)


def test_a_verdict_that_is_missing_stays_one(folder):
    (folder / "verdicts.csv").write_text("label,answer,category\nbeagle,dog,generic\nbeagle,cow,\nbeagle,cow,nan\n")
    scores = speciarl.score("verdicts.csv").lines[0].scores
    assert (scores.n, scores.missing) == (3, 2 / 3)


@pytest.mark.parametrize("kind", ["xlsx", "parquet", "jsonl", "semicolon"])
def test_verdicts_of_every_kind_are_scored_and_compared(folder, kind):
    table = pd.DataFrame(
        {
            "sample_id": ["a", "b", "c", None],
            "label": ["beagle"] * 3 + [None],
            "category": ["generic", "wrong", "specific", None],
        }
    )
    name = f"verdicts.{kind}"
    if kind == "xlsx":
        table.to_excel(name, index=False)
    elif kind == "parquet":
        table.to_parquet(name)
    elif kind == "jsonl":
        table.to_json(name, orient="records", lines=True)
    else:
        table.to_csv(name, index=False, sep=";")
    assert speciarl.score(name).lines[0].scores.n == 3
    table.iloc[:3].assign(category=["generic", "specific", "specific"]).to_csv("other.csv", index=False)
    result = call("compare", name, "other.csv")
    assert result.exit_code == 0 and "3 images" in result.stdout, result.stderr
    assert call("show", name, "--out", "page").exit_code == 0 and (folder / "page" / "index.html").exists()


def test_a_table_that_cannot_be_compared_is_told_in_one_line(folder):
    (folder / "a.csv").write_text("label,category\nbeagle,generic\n")
    result = call("compare", "a.csv", "b.csv")
    assert result.exit_code == 2
    told = "error: a.csv: no column 'sample_id' (found 'label', 'category'); name it with --sample-id-column, or make"
    assert result.stderr.startswith(told)
    (folder / "a.csv").write_text("picture;label;category\n1.png;beagle;generic\n2.png;beagle;wrong\n")
    (folder / "b.csv").write_text("picture;label;category\n1.png;beagle;generic\n2.png;beagle;generic\n")
    result = call("compare", "a.csv", "b.csv", "--sample-id-column", "picture")
    assert result.exit_code == 0 and "2 images" in result.stdout
    assert speciarl.compare("a.csv", "b.csv", columns={"sample_id": "picture"}).images == 2


def test_a_table_with_other_columns_is_shown(folder):
    (folder / "v.csv").write_text("picture;species;said;level\n1.png;beagle;dog;generic\n2.png;pug;cat;wrong\n")
    columns = ["--label-column", "species", "--answer-column", "said", "--category-column", "level"]
    told = call("show", "v.csv", "--out", "page", *columns)
    assert told.exit_code == 2 and "no column 'sample_id'" in told.stderr and "--sample-id-column" in told.stderr
    told = call("show", "v.csv", "--out", "page", *columns, "--sample-id-column", "picture")
    assert told.exit_code == 0 and told.stdout == "wrote page/index.html\n", told.stderr
    page = (folder / "page" / "index.html").read_text()
    assert "beagle" in page and "dog" in page and "cat" in page


@pytest.mark.parametrize(
    "content, expected",
    [
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 9,
            "a workbook of the old kind (.xls); save it as .xlsx or as CSV UTF-8",
        ),
        (b"PK\x03\x04" + b"x" * 99, "not a workbook that can be read (BadZipFile); save it as .xlsx or as CSV UTF-8"),
        (b"\xff\xfea", "begins like UTF-16, but is not; save as UTF-8"),
        ("label;answer\nbébé;x\n".encode("latin-1"), "not UTF-8 (byte 0xe9 in line 2); save as UTF-8"),
        ("label,answer\na,b\n".encode("utf-16-le"), "NUL byte in line 1; save as plain UTF-8 text"),
        (b"sep=;\nlabel;answer\na;b;c\n", "line 3 has 3 cells, the header 2; put a cell that contains a semicolon in "),
        (b"label\tlabel\na\tb\n", "column 'label' appears twice in the header; rename or drop one"),
        (b"label;answer\n", "a header but no rows; add one line per row"),
        (b"label;answer\n;\n", "no row is left: 1 with nothing in them (line 2); fill the table in"),
        (b'{"label": "a"}\n[1]\n', ":2: not an object; give a table with one JSON object in each line"),
        (
            b'{"label": ["a", "b"], "answer": "c"}\n',
            "line 1, column 'label': list \"['a', 'b']\", not a text; give one ",
        ),
    ],
)
def test_what_is_no_table_is_one_line(folder, content, expected):
    (folder / "pairs.csv").write_bytes(content)
    result = call("judge", "pairs.csv", "--out", "verdicts.csv")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.removeprefix("error: pairs.csv").removeprefix(": ").startswith(expected)
    assert not (folder / "verdicts.csv").exists()


def test_a_workbook_without_the_package_that_reads_it(folder, monkeypatch):
    write_as("xlsx", folder / "pairs.xlsx")
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    assert message(read_table, "pairs.xlsx") == (
        "pairs.xlsx: reading a workbook needs the package openpyxl; install it (pip install 'speciarl[xlsx]'), or save "
        "the sheet as CSV UTF-8"
    )


def test_what_excel_makes_of_names(folder):
    "A Boeing 747 is a number, and a Saab 9-3 a day in March; the first can be read, the second cannot be had back."
    book = openpyxl.Workbook()
    book.active.append(["label", "answer"])
    book.active.append([747.0, 737])
    book.create_sheet("empty")
    book.save("planes.xlsx")
    assert read_pairs("planes.xlsx").texts == [{"label": "747", "answer": "737"}]
    (folder / "floats.csv").write_text("label,answer\n747.0,737\n,\n777.0,plane\n")
    assert [pair["label"] for pair in read_pairs("floats.csv").texts] == ["747", "777"]
    (folder / "numbers.csv").write_text("label,answer\n2.0,2.5\n3.5,3.5\n")
    assert [pair["label"] for pair in read_pairs("numbers.csv").texts] == ["2.0", "3.5"]
    pd.DataFrame({"label": [pd.Timestamp("2026-03-09")], "answer": ["car"]}).to_excel("cars.xlsx", index=False)
    assert message(read_pairs, "cars.xlsx").startswith("cars.xlsx: row 2, column 'label': a date (2026-03-09")


def test_which_of_several_sheets_is_not_guessed(folder):
    book = openpyxl.Workbook()
    book.active.append(["label", "answer"])
    book.active.append(["a", "b"])
    notes = book.create_sheet("notes")
    notes.append(["who?"])
    book.save("two.xlsx")
    assert message(read_table, "two.xlsx") == (
        "two.xlsx: 2 sheets with something in them ('Sheet', 'notes'); keep the one that is meant, or save it as CSV "
        "UTF-8"
    )
    notes.sheet_state = "hidden"
    book.save("two.xlsx")
    assert read_table("two.xlsx").rows == [{"label": "a", "answer": "b"}]


def test_a_column_of_another_name(folder):
    (folder / "pairs.csv").write_text("species,label,Prediction\nbeagle,17,dog\n")
    told = call("judge", "pairs.csv", "--out", "verdicts.csv", "--label-column", "species")
    assert told.stderr == (
        "error: pairs.csv: no column 'answer' (found 'species', 'label', 'Prediction'); name it with "
        "--answer-column, or "
        "add it\n"
    )
    columns = ("--label-column", "species", "--answer-column", "prediction")
    told = call("judge", "pairs.csv", "--out", "verdicts.csv", *columns)
    assert told.exit_code == 0 and told.stderr == (
        "pairs.csv: column 'species' is read as label\npairs.csv: column 'Prediction' is read as answer\n"
    )
    header, row = (folder / "verdicts.csv").read_text().splitlines()
    assert header == "species,label,Prediction,category,source,reason" and row.startswith("beagle,17,dog,generic,tree")
    frame = pd.read_csv("pairs.csv")
    assert list(speciarl.judge(frame, label_column="species", answer_column="Prediction")["category"]) == ["generic"]
    assert "name it with answer_column=" in message(speciarl.judge, frame, label_column="species")
    (folder / "mine.csv").write_text("label,verdict\nbeagle,generic\n")
    assert call("score", "mine.csv").stderr.endswith("name it with --category-column, or make it with speciarl judge\n")
    assert call("score", "mine.csv", "--category-column", "verdict").exit_code == 0
    assert speciarl.score("mine.csv", category_column="verdict").lines[0].scores.correctness == 1
