"""Verdicts: the identity of a judge changes with its content only, and tables of verdicts come back as they were or
are refused."""

import csv

import pytest
from refusal import message

from speciarl.core.scale import Category
from speciarl.judges.verdict import Verdict, identity, read_verdicts, with_verdict, write_verdicts

PAIRS = [("samoyed", "spitz"), ("samoyed", "dog"), ("samoyed", "corgi mix")]
VERDICTS = [
    Verdict(Category.LESS_SPECIFIC, "llm"),
    Verdict(Category.GENERIC, "llm", "a dog"),
    Verdict(None, "llm", "no answer"),
]


# --- identity ---------------------------------------------------------------------------------------------------------


def test_identity_is_a_hash_of_content_and_not_of_order():
    assert identity(a=1, b=[2, None]) == identity(b=[2, None], a=1)
    assert identity(a=1) != identity(a="1") and identity(a={"b": 1}) != identity(a={"b": 2})
    assert identity(prompt="é") == identity(prompt="é") and len(identity()) == 64
    assert (
        identity(judge="tree", version=1) == "e5f8155b90280106295e77ad364d7e5eba30db10cc7928d873eb4759cbfafdac"
    )  # stores outlive versions of the package


@pytest.mark.parametrize("value", [{1}, float("nan"), object()])
def test_identity_refuses_what_json_cannot_hold(value):
    with pytest.raises((TypeError, ValueError)):
        identity(a=value)


# --- CSV --------------------------------------------------------------------------------------------------------------


def rows():
    return [
        with_verdict({"n": str(i), "label": label, "answer": answer}, verdict)
        for i, ((label, answer), verdict) in enumerate(zip(PAIRS, VERDICTS))
    ]


def test_a_table_comes_back_as_it_was(tmp_path):
    path = tmp_path / "v.csv"
    write_verdicts(path, rows(), ["n", "label", "answer"])
    assert (
        path.read_text()
        == "n,label,answer,category,source,reason\n0,samoyed,spitz,less specific,llm,\n1,samoyed,dog,generic,llm,a "
        "dog\n2,samoyed,corgi mix,,llm,no answer\n"
    )
    back, columns = read_verdicts(path)
    assert back == rows() and back[0]["category"] is Category.LESS_SPECIFIC and back[2]["category"] is None
    first = path.read_bytes()
    write_verdicts(path, back, columns)
    assert path.read_bytes() == first


def test_awkward_cells_survive(tmp_path):
    path = tmp_path / "v.csv"
    row = with_verdict(
        {"label": 'say "hi", you\nthere', "answer": " é ", "kept": "=1+1"}, Verdict(Category.WRONG, "tree", "a, b")
    )
    write_verdicts(path, [row], ["kept", "label", "answer"])
    assert read_verdicts(path) == ([row], ["kept", "label", "answer", "category", "source", "reason"])


def test_verdict_columns_of_the_input_are_replaced_and_names_are_accepted(tmp_path):
    path = tmp_path / "v.csv"
    write_verdicts(
        path,
        [
            {"label": "a", "category": "generic", "source": "s", "reason": "r"},
            {"label": "b", "category": "", "source": "", "reason": ""},
        ],
        ["category", "label", "reason"],
    )
    assert path.read_text() == "label,category,source,reason\na,generic,s,r\nb,,,\n"
    expected = (
        "unknown category 'less_specific': use one of wrong, abstain, generic, less specific, specific, more specific"
    )
    assert message(write_verdicts, path, [{"category": "less_specific", "source": "", "reason": ""}], []) == expected
    assert path.read_text().startswith("label,category") and list(tmp_path.iterdir()) == [path]


def test_a_file_with_categories_only_is_enough(tmp_path):
    path = tmp_path / "v.csv"
    path.write_bytes(b"\xef\xbb\xbfcategory\r\nspecific\r\n")
    assert read_verdicts(path) == ([{"category": Category.SPECIFIC, "source": "", "reason": ""}], ["category"])


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", ": the file is empty; it needs a header line and one line per row"),
        (
            b"label,answer\na,b\n",
            ": no column 'category' (found 'label', 'answer'); make it with speciarl judge, or rename one",
        ),
        (b"category,category\nwrong,wrong\n", ": column 'category' appears twice in the header; rename or drop one"),
        (b"label,category\n", ": a header but no rows; add one line per row"),
        (
            b"label,category\na,wrong\nb,Wrong\n",
            ": row 2: unknown category 'Wrong': use one of wrong, abstain, generic, less specific, specific, more "
            "specific",
        ),
        (
            b"label,category\na,b,wrong\n",
            ": line 2 has 3 cells, the header 2; put a cell that contains a comma in quotation marks",
        ),
        (b"label,category\na\0,wrong\n", ": NUL byte in line 2; save as plain UTF-8 text"),
        (
            b'label,category\n"a,wrong\n',
            ": line 2: broken quoting (unexpected end of data); close the quotation mark, and double those inside a "
            "cell",
        ),
        (b"label,category\n\xe9,wrong\n", ": not UTF-8 (byte 0xe9 in line 2); save as UTF-8"),
        (
            b"label,category\n" + b"x" * 1_000_000 + b",wrong\n",
            ": line 2, column 'label': a cell of more than 100,000 characters; shorten it, or close its quotation mark",
        ),
    ],
)
def test_files_that_cannot_be_trusted(tmp_path, content, expected):
    path = tmp_path / "v.csv"
    path.write_bytes(content)
    assert message(read_verdicts, path) == f"{path}{expected}"


def test_a_file_that_is_not_there(tmp_path):
    assert message(read_verdicts, tmp_path / "v.csv") == f"{tmp_path / 'v.csv'}: no such file; check the path"


def test_a_failed_write_leaves_the_old_table(tmp_path):
    path = tmp_path / "v.csv"
    path.write_text("old")
    with pytest.raises(KeyError):
        write_verdicts(path, [{"label": "a"}], ["label"])
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with path.open() as file:
        assert list(csv.reader(file)) == [["old"]]
