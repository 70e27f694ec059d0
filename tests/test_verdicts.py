"""Verdicts: what is stored comes back, what is missing is never stored, processes share a store, and foreign files are left alone."""

import csv
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciarl.scale import Category, UserError
from speciarl.verdicts import Verdict, VerdictStore, identity, read_verdicts, with_verdict, write_verdicts

PAIRS = [("samoyed", "spitz"), ("samoyed", "dog"), ("samoyed", "corgi mix")]
VERDICTS = [Verdict(Category.LESS_SPECIFIC, "llm"), Verdict(Category.GENERIC, "llm", "a dog"), Verdict(None, "llm", "no answer")]


def message(action, *args) -> str:
    with pytest.raises(UserError) as caught:
        action(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- identity ---------------------------------------------------------------------------------------------------------


def test_identity_is_a_hash_of_content_and_not_of_order():
    assert identity(a=1, b=[2, None]) == identity(b=[2, None], a=1)
    assert identity(a=1) != identity(a="1") and identity(a={"b": 1}) != identity(a={"b": 2})
    assert identity(prompt="é") == identity(prompt="é") and len(identity()) == 64
    assert identity(judge="tree", version=1) == "e5f8155b90280106295e77ad364d7e5eba30db10cc7928d873eb4759cbfafdac"  # stores outlive versions of the package


@pytest.mark.parametrize("value", [{1}, float("nan"), object()])
def test_identity_refuses_what_json_cannot_hold(value):
    with pytest.raises((TypeError, ValueError)):
        identity(a=value)


# --- the store --------------------------------------------------------------------------------------------------------


def test_verdicts_come_back_in_order_and_missing_ones_are_not_stored(tmp_path):
    with VerdictStore(tmp_path / "v.sqlite") as store:
        store.put_many("j", PAIRS, VERDICTS)
        assert store.get_many("j", [PAIRS[1], ("x", "y"), PAIRS[0], PAIRS[2]]) == [VERDICTS[1], None, VERDICTS[0], None]
        assert store.get_many("another", PAIRS) == [None] * 3 and store.get_many("j", []) == [] and store.count() == 2
    with VerdictStore(tmp_path / "v.sqlite") as store:
        assert store.get_many("j", PAIRS) == [*VERDICTS[:2], None]
        assert store.get_many("j", PAIRS)[0].category is Category.LESS_SPECIFIC


def test_the_first_verdict_stays(tmp_path):
    with VerdictStore(tmp_path / "v.sqlite") as store:
        store.put_many("j", PAIRS[:1] * 2, [VERDICTS[0], VERDICTS[1]])
        store.put_many("j", PAIRS[:1], [Verdict(Category.WRONG, "llm")])
        assert store.get_many("j", PAIRS[:1]) == VERDICTS[:1] and store.count() == 1


def test_keys_are_taken_as_they_are(tmp_path):
    with VerdictStore(tmp_path / "v.sqlite") as store:
        store.put_many("j", [("a", "b / c")], [Verdict(Category.WRONG, "tree")])
        assert store.get_many("j", [("a", "b c"), ("a", "B / C"), ("a", "b / c")]) == [None, None, Verdict(Category.WRONG, "tree")]


def test_a_batch_is_stored_whole_or_not_at_all(tmp_path):
    with VerdictStore(tmp_path / "v.sqlite") as store:
        with pytest.raises(sqlite3.ProgrammingError):
            store.put_many("j", [("a", "b"), ("a", object())], [VERDICTS[0]] * 2)
        with pytest.raises(ValueError):
            store.put_many("j", PAIRS, VERDICTS[:1])
        assert store.count() == 0
        store.put_many("j", PAIRS, VERDICTS)
        assert store.count() == 2


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), st.text(st.characters(exclude_categories=["Cs"]), max_size=9)), unique=True, max_size=5))
@settings(deadline=None, max_examples=30)
def test_any_text_is_a_key(tmp_path_factory, pairs):
    with VerdictStore(tmp_path_factory.mktemp("store") / "v.sqlite") as store:
        given_out = [Verdict(Category(i % 6), str(i), "\0'\"") for i in range(len(pairs))]
        store.put_many("j", pairs, given_out)
        assert store.get_many("j", pairs) == given_out


WRITER = """
import sys
from speciarl.scale import Category
from speciarl.verdicts import Verdict, VerdictStore
path, start = sys.argv[1], int(sys.argv[2])
with VerdictStore(path) as store:
    for batch in range(40):
        pairs = [("label", f"answer {start + 25 * batch + i}") for i in range(25)]
        store.put_many("judge", pairs, [Verdict(Category.GENERIC, str(start))] * 25)
        assert all(store.get_many("judge", pairs))
"""


def test_two_processes_fill_one_new_store(tmp_path):
    path = tmp_path / "deep" / "v.sqlite"  # neither file nor folder exists: both processes make them at once
    processes = [subprocess.Popen([sys.executable, "-c", WRITER, path, start], stderr=subprocess.PIPE, text=True) for start in ("0", "500")]
    errors = [process.communicate()[1] for process in processes]
    assert errors == ["", ""] and [process.returncode for process in processes] == [0, 0]
    with VerdictStore(path) as store:
        assert store.count() == 1500
        sources = [verdict.source for verdict in store.get_many("judge", [("label", f"answer {i}") for i in range(1500)])]
        assert set(sources[:500]) == {"0"} and set(sources[1000:]) == {"500"} and set(sources[500:1000]) <= {"0", "500"}


def test_a_killed_writer_leaves_whole_batches(tmp_path):
    path = tmp_path / "v.sqlite"
    endless = WRITER.replace("range(40)", "range(10**9)").replace("        assert", "        print(batch, flush=True)\n        assert")
    process = subprocess.Popen([sys.executable, "-c", endless, path, "0"], stdout=subprocess.PIPE, text=True)
    done = [process.stdout.readline() for _ in range(5)]
    process.kill()
    process.communicate()
    with VerdictStore(path) as store:
        assert done[-1] == "4\n" and store.count() >= 125 and store.count() % 25 == 0


@pytest.mark.parametrize("content", [b"label,answer\n" * 100, b"\x00" * 4096, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_store_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "v.sqlite"
    path.write_bytes(content)
    assert message(VerdictStore, path) == f"{path} is not a sound verdict store (file is not a database); delete it or choose another path"
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_the_database_of_another_program_is_refused_and_kept(tmp_path):
    path = tmp_path / "v.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    before = path.read_bytes()
    assert message(VerdictStore, path) == f"{path} is not a sound verdict store (it holds the table 'bookmarks'); delete it or choose another path"
    assert path.read_bytes() == before


def test_a_store_damaged_in_the_middle_is_reported(tmp_path):
    path = tmp_path / "v.sqlite"
    pairs = [("label", f"answer {i}" * 20) for i in range(2000)]
    with VerdictStore(path) as store:
        store.put_many("j", pairs, [VERDICTS[0]] * 2000)
    content = bytearray(path.read_bytes())
    content[8192:-4096] = b"\xff" * len(content[8192:-4096])
    path.write_bytes(content)
    with VerdictStore(path) as store:
        assert message(store.get_many, "j", pairs) == f"{path} is not a sound verdict store (database disk image is malformed); delete it or choose another path"


def test_a_place_that_cannot_hold_a_store(tmp_path):
    advice = "check the folder and that no other program holds the file"
    assert message(VerdictStore, tmp_path) == f"cannot use the verdict store {tmp_path}: unable to open database file; {advice}"
    (tmp_path / "file").write_text("x")
    inside = tmp_path / "file" / "v.sqlite"
    assert message(VerdictStore, inside).startswith(f"cannot use the verdict store {inside}: ")


def test_no_pickle_is_involved():
    import speciarl.verdicts

    assert "pickle" not in Path(speciarl.verdicts.__file__).read_text()


# --- CSV --------------------------------------------------------------------------------------------------------------


def rows():
    return [with_verdict({"n": str(i), "label": label, "answer": answer}, verdict) for i, ((label, answer), verdict) in enumerate(zip(PAIRS, VERDICTS))]


def test_a_table_comes_back_as_it_was(tmp_path):
    path = tmp_path / "v.csv"
    write_verdicts(path, rows(), ["n", "label", "answer"])
    assert path.read_text() == "n,label,answer,category,source,reason\n0,samoyed,spitz,less specific,llm,\n1,samoyed,dog,generic,llm,a dog\n2,samoyed,corgi mix,,llm,no answer\n"
    back, columns = read_verdicts(path)
    assert back == rows() and back[0]["category"] is Category.LESS_SPECIFIC and back[2]["category"] is None
    first = path.read_bytes()
    write_verdicts(path, back, columns)
    assert path.read_bytes() == first


def test_awkward_cells_survive(tmp_path):
    path = tmp_path / "v.csv"
    row = with_verdict({"label": 'say "hi", you\nthere', "answer": " é ", "kept": "=1+1"}, Verdict(Category.WRONG, "tree", "a, b"))
    write_verdicts(path, [row], ["kept", "label", "answer"])
    assert read_verdicts(path) == ([row], ["kept", "label", "answer", "category", "source", "reason"])


def test_verdict_columns_of_the_input_are_replaced_and_names_are_accepted(tmp_path):
    path = tmp_path / "v.csv"
    write_verdicts(path, [{"label": "a", "category": "generic", "source": "s", "reason": "r"}, {"label": "b", "category": "", "source": "", "reason": ""}], ["category", "label", "reason"])
    assert path.read_text() == "label,category,source,reason\na,generic,s,r\nb,,,\n"
    expected = "unknown category 'less_specific': use one of wrong, abstain, generic, less specific, specific, more specific"
    assert message(write_verdicts, path, [{"category": "less_specific", "source": "", "reason": ""}], []) == expected
    assert path.read_text().startswith("label,category") and list(tmp_path.iterdir()) == [path]


def test_a_file_with_categories_only_is_enough(tmp_path):
    path = tmp_path / "v.csv"
    path.write_bytes(b"\xef\xbb\xbfcategory\r\nspecific\r\n")
    assert read_verdicts(path) == ([{"category": Category.SPECIFIC, "source": "", "reason": ""}], ["category"])


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", " is not a verdict file: it needs one column 'category' and no column twice; make one with speciarl judge"),
        (b"label,answer\na,b\n", " is not a verdict file: it needs one column 'category' and no column twice; make one with speciarl judge"),
        (b"category,category\nwrong,wrong\n", " is not a verdict file: it needs one column 'category' and no column twice; make one with speciarl judge"),
        (b"label,category\na,wrong\nb,Wrong\n", ":3: unknown category 'Wrong': use one of wrong, abstain, generic, less specific, specific, more specific"),
        (b"label,category\na,b,wrong\n", ":2: 3 cells under 2 columns; put cells that hold commas in quotation marks"),
        (b"label,category\na\0,wrong\n", " is not a CSV file in UTF-8 (it holds a NUL byte); write it again with speciarl judge"),
        (b'label,category\n"a,wrong\n', " is not a CSV file in UTF-8 (unexpected end of data); write it again with speciarl judge"),
        (b"label,category\n\xe9,wrong\n", " is not a CSV file in UTF-8 ('utf-8' codec can't decode byte 0xe9 in position 15: invalid continuation byte); write it again with speciarl judge"),
        (b"label,category\n" + b"x" * 1_000_000 + b",wrong\n", " is not a CSV file in UTF-8 (field larger than field limit (131072)); write it again with speciarl judge"),
    ],
)
def test_files_that_cannot_be_trusted(tmp_path, content, expected):
    path = tmp_path / "v.csv"
    path.write_bytes(content)
    assert message(read_verdicts, path) == f"{path}{expected}"


def test_a_file_that_is_not_there(tmp_path):
    assert message(read_verdicts, tmp_path / "v.csv") == f"cannot read {tmp_path / 'v.csv'}: No such file or directory; give the path of a verdict file"


def test_a_failed_write_leaves_the_old_table(tmp_path):
    path = tmp_path / "v.csv"
    path.write_text("old")
    with pytest.raises(KeyError):
        write_verdicts(path, [{"label": "a"}], ["label"])
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with path.open() as file:
        assert list(csv.reader(file)) == [["old"]]
