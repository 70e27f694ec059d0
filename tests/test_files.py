"""Files: what is written is whole or absent, what is read is checked, and a lock is held by one process that lives."""

import csv
import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from functools import partial
from itertools import count
from types import SimpleNamespace
from unittest.mock import Mock, patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusal import message

from speciarl.core import files
from speciarl.core.files import (
    LONGEST_LINE,
    MAX_CELL,
    append_jsonl,
    atomic_write,
    check_header,
    digest,
    file_digest,
    find_json,
    library_versions,
    locked,
    parse_csv,
    read_csv,
    read_json,
    read_jsonl,
    read_text,
    tree_digest,
    weights_digest,
    write_csv,
    write_json,
    write_jsonl,
)
from speciarl.core.scale import UserError
from speciarl.core.work import progress, watched


def python(code, *arguments, **options):
    "A process that runs `code`."
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, **options)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = write_json(tmp_path / "card.json", {"steps": 1})
    monkeypatch.setattr(files.os, "fsync", full)
    told = f"cannot write {path}: No space left on device; make room and run again"
    assert message(write_json, path, {"steps": 2}) == told
    assert message(write_jsonl, path, [{"steps": 2}]) == told
    assert message(write_csv, path, ["steps"], [[2]]) == told
    assert read_json(path) == {"steps": 1} and list(tmp_path.iterdir()) == [path]


def test_a_row_that_fails_half_way_leaves_the_old_file(tmp_path):
    def rows():
        yield {"a": 1}
        raise RuntimeError("the source of the rows is gone")

    path = write_jsonl(tmp_path / "rows.jsonl", [{"a": 0}])
    with pytest.raises(RuntimeError):
        write_jsonl(path, rows())
    assert list(read_jsonl(path)) == [{"a": 0}] and list(tmp_path.iterdir()) == [path]


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    code = (
        "import os, sys; from speciarl.core.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as file:\n"
        "    file.write('x' * 1_000_000); file.flush(); os.kill(os.getpid(), 9)"
    )
    assert python(code, path).returncode == -9
    assert path.read_text() == "old"


def test_a_file_is_made_with_its_folder_and_anybody_may_read_it(tmp_path):
    with atomic_write(tmp_path / "deep" / "er" / "file", "wb") as file:
        file.write(b"x")
    made = tmp_path / "deep" / "er" / "file"
    assert made.read_bytes() == b"x" and made.stat().st_mode & 0o777 == 0o644


def test_the_bytes_of_both_layouts_of_json(tmp_path):
    value = {"b": [1, 2.5], "a": {"é": None}, "folder": tmp_path}
    write_json(tmp_path / "card.json", value)
    write_json(tmp_path / "record.json", value, indent=1, sort_keys=True)
    assert (tmp_path / "card.json").read_text(encoding="utf-8") == (
        f'{{\n  "b": [\n    1,\n    2.5\n  ],\n  "a": {{\n    "é": null\n  }},\n  "folder": "{tmp_path}"\n}}\n'
    )
    assert (tmp_path / "record.json").read_text(encoding="utf-8") == (
        f'{{\n "a": {{\n  "é": null\n }},\n "b": [\n  1,\n  2.5\n ],\n "folder": "{tmp_path}"\n}}\n'
    )


def test_the_bytes_of_json_lines(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"b": "é\n", "a": None}])
    append_jsonl(path, [{"b": "é"}], encode=json.dumps)
    append_jsonl(path, [])
    assert path.read_bytes() == '{"b": "é\\n", "a": null}\n{"b": "\\u00e9"}\n'.encode()


def test_half_a_surrogate_pair_is_written_and_read_back(tmp_path):
    "A server may send one; UTF-8 cannot hold it, JSON can."
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a\ud83dé"}])
    assert list(read_jsonl(path)) == [{"text": "a\ud83dé"}]
    assert read_json(write_json(tmp_path / "card.json", ["\ud83d"])) == ["\ud83d"]


def test_what_cannot_be_appended_is_said_in_one_line(tmp_path):
    assert message(append_jsonl, "/dev/full", [{}], todo="make room") == (
        "cannot write /dev/full: No space left on device; make room"
    )
    (tmp_path / "file").write_text("")
    assert "choose a folder you may write to" in message(append_jsonl, tmp_path / "file" / "rows.jsonl", [{}])
    path = write_jsonl(tmp_path / "rows.jsonl", [1])
    with pytest.raises(TypeError):
        append_jsonl(path, [2, object()], encode=json.dumps)
    assert path.read_text() == "1\n", "nothing of the rows before the faulty one"


# --- text and JSON ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", "the file is empty; it needs a header line and one line per row"),
        (b"\xef\xbb\xbf \r\n", "the file is empty; it needs a header line and one line per row"),
        (b"a\n\0\n", "NUL byte in line 2; save as plain UTF-8 text"),
        ("a\ncrème".encode("latin-1"), "not UTF-8 (byte 0xe8 in line 2); save as UTF-8"),
        ("a".encode("utf-16"), "not UTF-8 (byte 0xff in line 1); save as UTF-8"),
    ],
)
def test_text_that_is_none(tmp_path, content, expected):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert message(read_text, path) == f"{path}: {expected}"


def test_a_file_that_is_not_there_and_a_folder(tmp_path):
    gone = tmp_path / "gone"
    for read in (read_text, read_json, read_csv, lambda path: list(read_jsonl(path))):
        assert message(read, gone) == f"{gone}: no such file; check the path"
        assert message(read, tmp_path) == f"{tmp_path}: cannot be read (Is a directory); give a file you may read"
    assert find_json(gone) is None


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", ": the file is empty; it needs a value in JSON"),
        (b'{"a": 1,\n "b": }', ":2: not JSON (Expecting value); write it again"),
        (b'{"a": 1}\n{"a": 2}\n', ":2: not JSON (Extra data); write it again"),
        (b"\xff", ": not UTF-8 (byte 0xff in line 1); save as UTF-8"),
        (b"[" * 100_000, ": JSON nested too deeply; write it again"),
    ],
)
def test_broken_json_is_refused_or_not_there(tmp_path, content, expected):
    path = tmp_path / "card.json"
    path.write_bytes(content)
    assert message(read_json, path, "write it again") == f"{path}{expected}"
    assert find_json(path) is None


def test_a_mark_and_line_ends_of_another_system_are_read(tmp_path):
    (tmp_path / "card.json").write_bytes(b'\xef\xbb\xbf{\r\n"a": 1\r\n}\r\n')
    assert read_json(tmp_path / "card.json") == find_json(tmp_path / "card.json") == {"a": 1}
    (tmp_path / "rows.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}')
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == [{"a": 1}, {"a": 2}]


# --- JSON lines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"{", b"", b"\0", b'"\xff"', b"\xef\xbb\xbf1", b"[" * 100_000, b"1 2"])
def test_a_broken_line_is_named_also_where_the_last_may_be_torn(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"1\n" + line + b"\n3\n")
    for torn in (False, True):
        told = message(lambda torn=torn: list(read_jsonl(path, torn=torn, todo="sample again")))
        assert told == f"{path}:2: not a line of JSON in UTF-8; sample again"


def test_a_file_cut_anywhere_loses_at_most_the_last_row(tmp_path):
    rows = [{"answer": "crème"}, {"answer": None, "n": [1, 2]}, {"answer": "\u2028\n"}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        held = list(read_jsonl(path, torn=True))
        whole = data[:length].count(b"\n")
        assert held == rows[: len(held)] and whole <= len(held) <= whole + 1, "a row may lack nothing but its end"
        write_jsonl(path, held)
        append_jsonl(path, rows[len(held) :])
        assert path.read_bytes() == data


def test_a_writer_that_is_killed_in_a_line_can_be_gone_on_with(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    code = (
        "import os, sys; from speciarl.core.files import append_jsonl\n"
        "append_jsonl(sys.argv[1], [{'n': 0}, {'n': 1}])\n"
        "with open(sys.argv[1], 'ab', buffering=0) as file:\n    file.write(b'{\"n\": '); os.kill(os.getpid(), 9)"
    )
    assert python(code, path).returncode == -9
    assert message(lambda: list(read_jsonl(path))).startswith(f"{path}:3: not a line of JSON")
    write_jsonl(path, read_jsonl(path, torn=True))
    append_jsonl(path, [{"n": 2}])
    assert list(read_jsonl(path)) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_line_of_a_megabyte_is_read_and_one_without_end_refused(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", ["x" * 1_000_000, 2])
    assert [len(str(value)) for value in read_jsonl(path)] == [1_000_000, 1]
    path.write_bytes(b"1\n" + b" " * (LONGEST_LINE + 1))
    for torn in (False, True):
        told = message(lambda torn=torn: list(read_jsonl(path, torn=torn)))
        assert told == f"{path}:2: the line is longer than 10,000,000 bytes; check that it is the right file"


# --- tables -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    def write(content) -> str:
        path = tmp_path / "pairs.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def read_pairs(path):
    "A table of labels and answers."
    return read_csv(path, ["label", "answer"])


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", "the file is empty; it needs a header line and one line per row"),
        (b"\xef\xbb\xbf", "the file is empty; it needs a header line and one line per row"),
        (b"\n \r\n\n", "the file is empty; it needs a header line and one line per row"),
        (b"label,answer\n", "a header but no rows; add one line per row"),
        ("label,answer\nok,ok\nbébé,x\n".encode("latin-1"), "not UTF-8 (byte 0xe9 in line 3); save as UTF-8"),
        ("label,answer\na,b\n".encode("utf-16"), "not UTF-8 (byte 0xff in line 1); save as UTF-8"),
        ("label,answer\na,b\n".encode("utf-16-le"), "NUL byte in line 1; save as plain UTF-8 text"),
        (b"label,answer\na,b\nc,\0\n", "NUL byte in line 3; save as plain UTF-8 text"),
        ("label,guess\na,b\n", "no column 'answer' (found 'label', 'guess'); add it or rename one"),
        ("Label, answer\na,b\n", "no column 'label' (found 'Label', ' answer'); add it or rename one"),
        ("label;answer\na;b\n", "no column 'label' (found 'label;answer'); separate cells with commas"),
        ("label\tanswer\na\tb\n", "no column 'label' (found 'label\\tanswer'); separate cells with commas"),
        ("label,answer,label\na,b,c\n", "column 'label' appears twice in the header; rename or drop one"),
        (
            "label,answer\na,b\n\na,b,c\n",
            "line 4 has 3 cells, the header 2; put a cell that contains a comma in quotation marks",
        ),
        ("label,answer\na\n", "line 2 has 1 cells, the header 2; put a cell that contains a comma in quotation marks"),
        (
            'label,answer\n"a\nb",c\nd\n',
            "line 4 has 1 cells, the header 2; put a cell that contains a comma in quotation marks",
        ),
        (
            'label,answer\na,b\n"c,d\n',
            "line 3: broken quoting (unexpected end of data); close the quotation mark, and double those inside a cell",
        ),
        (
            'label,answer\n"a"b,c\n',
            "line 2: broken quoting (',' expected after '\"'); "
            "close the quotation mark, and double those inside a cell",
        ),
    ],
)
def test_a_bad_table_is_refused_in_one_line(table, content, expected):
    path = table(content)
    assert message(read_pairs, path) == f"{path}: {expected}"


def test_a_missing_table_and_a_folder(tmp_path):
    assert message(read_pairs, tmp_path / "no.csv") == f"{tmp_path}/no.csv: no such file; check the path"
    assert message(read_pairs, tmp_path) == f"{tmp_path}: cannot be read (Is a directory); give a file you may read"


@pytest.mark.parametrize("length", [MAX_CELL + 1, 131_073, 1_000_000])
@pytest.mark.parametrize(
    "row, column", [("{},b,c", "label"), ('a,"b, {}",c', "answer"), ('a,"b ""{}""",c', "answer"), ("a,b,{}", "note")]
)
def test_a_long_cell_is_named_by_line_and_column(table, row, column, length):
    path = table("label,answer,note\nok,ok,ok\n" + row.format("x" * length) + "\n")
    expected = (
        f"line 3, column '{column}': a cell of more than 100,000 characters; shorten it, or close its quotation mark"
    )
    assert message(read_pairs, path) == f"{path}: {expected}"


def test_a_quotation_mark_that_swallows_the_file(table):
    path = table('label,answer\nok,"ok\n' + "samoyed,dog\n" * 20_000)
    expected = (
        "line 2, column 'answer': a cell of more than 100,000 characters; shorten it, or close its quotation mark"
    )
    assert message(read_pairs, path) == f"{path}: {expected}"


def test_the_limit_of_the_csv_module_is_left_alone(table):
    before = csv.field_size_limit()
    message(read_pairs, table("label,answer\na," + "x" * 1_000_000 + "\n"))
    assert csv.field_size_limit() == before
    rows, _ = read_pairs(table("label,answer\na," + "x" * MAX_CELL + "\n"))
    assert len(rows[0]["answer"]) == MAX_CELL


def test_a_mark_line_ends_and_quotes_are_accepted(table):
    rows, columns = read_pairs(
        table(b'\xef\xbb\xbflabel,answer,note\r\n"a, b","c ""d""",\r\n\r\n e ,"two\nlines",x\r\n')
    )
    assert columns == ["label", "answer", "note"]
    assert rows == [
        {"label": "a, b", "answer": 'c "d"', "note": ""},
        {"label": " e ", "answer": "two\nlines", "note": "x"},
    ]


def test_what_to_do_about_a_missing_column_is_the_callers(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("label\na\n")
    assert message(read_csv, path, ["category"], todo="judge it first").endswith("(found 'label'); judge it first")
    check_header(path, ["a", "b"], ["b"])


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=8))
def test_what_is_written_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "table.csv"
    write_csv(path, ["label", "answer", "note"], rows)
    assert [tuple(row.values()) for row in read_csv(path)[0]] == rows


def test_the_bytes_of_a_table(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(path, ["label", "n"], [["a, b", 1], ['say "hi"\nyou', 0.5], ["é ", None], ["", True]])
    assert path.read_bytes() == 'label,n\n"a, b",1\n"say ""hi""\nyou",0.5\né ,\n,True\n'.encode()
    with open(path, encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["label", "n"],
            ["a, b", "1"],
            ['say "hi"\nyou', "0.5"],
            ["é ", ""],
            ["", "True"],
        ]


def test_a_carriage_return_in_an_answer_stays_in_its_cell(tmp_path):
    write_csv(tmp_path / "table.csv", ["answer"], [["a\rb"], ["c\r\nd"], ["\r"]])
    assert [row["answer"] for row in read_csv(tmp_path / "table.csv")[0]] == ["a\rb", "c\r\nd", "\r"]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_rows_or_one_line(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("speciarl.core.files.Path.read_bytes", lambda self: b"label,answer\n" + data)
        try:
            rows, columns = read_pairs("x.csv")
            assert rows and all(list(row) == columns == ["label", "answer"] for row in rows)
        except UserError as error:
            assert "\n" not in str(error)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_any_text_gives_rows_or_one_line(text):
    try:
        rows, columns = parse_csv(text, "x.csv")
        assert rows and all(list(row) == columns for row in rows)
    except UserError as error:
        assert "\n" not in str(error)


# --- digests and versions ---------------------------------------------------------------------------------------------


def test_digests_do_not_change_with_the_package(tmp_path):
    "Keys, stores and records outlive it."
    value = {"seed": 1, "policy": {"steps": 8, "name": "crème"}, "images": [1, 2.5, None]}
    assert digest(value) == digest(json.loads(json.dumps(value, sort_keys=True)))
    assert digest(value) == "67ca73b48c5d4cd05a7ab86d88132a75e23c4bdd092e7b7dda6a5f5933f35aaa"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_text("crème")
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    assert tree_digest(tmp_path) == "2f97714f2e23237bdb63ba5aeae30a113806c1639507be5552811bd15608b020"
    assert file_digest(tmp_path / "a.bin") == "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880"
    assert file_digest(tmp_path / "a.bin", "md5") == "e2c865db4162bed963bfaa9ef6ac18f0"
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert tree_digest(tmp_path) == "2f97714f2e23237bdb63ba5aeae30a113806c1639507be5552811bd15608b020"
    assert tree_digest(tmp_path / "a.bin") == digest([(".", file_digest(tmp_path / "a.bin"))])


def test_weights_have_one_digest_over_all_their_files(tmp_path):
    (tmp_path / "b.safetensors").write_bytes(b"b" * 3_000_000)
    (tmp_path / "a.safetensors").write_bytes(b"a")
    (tmp_path / "config.json").write_text("{}")
    assert weights_digest(tmp_path) == hashlib.sha256(b"a" + b"b" * 3_000_000).hexdigest()


@pytest.mark.parametrize("value", [{1}, float("nan"), object(), {"path": os.curdir, "of": io.StringIO}])
def test_what_json_cannot_hold_has_no_digest(value):
    with pytest.raises((TypeError, ValueError)):
        digest(value)


def test_versions_of_what_is_installed():
    assert library_versions(["pytest", "no-such-library"]) == {"pytest": pytest.__version__, "no-such-library": None}


# --- locks ------------------------------------------------------------------------------------------------------------

HOLD = (
    "import sys, time; from speciarl.core.files import locked\n"
    "with locked(sys.argv[1]):\n    print('held', flush=True); time.sleep(float(sys.argv[2]))"
)


def holder(path, seconds):
    "A process that holds the lock at `path` for some seconds."
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_of_another_process_is_busy_until_it_is_killed(tmp_path):
    path = tmp_path / "deep" / ".lock"
    process = holder(path, 60)
    try:
        with (
            pytest.raises(UserError, match="^somebody is at work here$"),
            locked(path, busy="somebody is at work here"),
        ):
            pass
    finally:
        process.kill()
        process.wait()
    assert path.exists(), "the file may stay; it means nothing"
    with locked(path, busy="somebody is at work here"):
        pass


def test_without_a_message_it_is_waited_for(tmp_path):
    process = holder(tmp_path / ".lock", 1)
    began = time.monotonic()
    with locked(tmp_path / ".lock"):
        assert process.wait(10) == 0 and time.monotonic() - began > 0.3


def test_an_error_frees_the_lock_and_passes_through(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path / ".lock"):
        raise KeyError
    with locked(tmp_path / ".lock", busy="still taken"):
        pass


def test_a_lock_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError), locked(tmp_path / "file" / ".lock"):
        pass


def test_modules_without_training_are_imported_on_a_system_without_fcntl():
    "Windows has neither of the two."
    code = (
        "import sys; sys.modules |= {'fcntl': None, 'resource': None}\n"
        "import speciarl.cli, speciarl.core.files, speciarl.data.fetch\n"
        "import speciarl.metrics.runs, speciarl.metrics.compare, speciarl.report.page"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr


# --- progress ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("show, expected", [(None, ""), (False, ""), (True, "100%")])
def test_a_bar_is_drawn_on_a_terminal_or_where_it_is_wanted(capsys, show, expected):
    with progress(4, "answer", begun=2, show=show) as bar:
        bar.update(2)
    out, drawn = capsys.readouterr()
    assert out == "" and expected in drawn and bool(drawn) == bool(expected)


def ticking(step):
    "A clock that each look puts forward by `step` seconds."
    return patch("tqdm.std.time", partial(next, count(0, step)))


def test_work_of_more_than_two_seconds_shows_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress(4, "answer") as bar:
        bar.update(4)
    assert capsys.readouterr().err == ""
    with ticking(3), progress(4, "answer") as bar:
        bar.update(4)
    assert "4/4" in capsys.readouterr().err


def test_long_work_tells_a_line_each_half_minute_where_nobody_watches(capsys):
    with ticking(5), progress(12_000, "answer", title="label trees", leave=False) as bar:
        for _ in range(24):
            bar.update(500)
    out, lines = capsys.readouterr()
    assert out == "" and "\r" not in lines and 3 <= len(lines.splitlines()) <= 5
    assert all(line.startswith("label trees: ") and " of 12000 answers, " in line for line in lines.splitlines())


def test_a_notebook_shows_a_bar_if_it_is_open_and_none_if_a_program_executes_it(monkeypatch):
    for is_open in (True, False):
        shell = SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=is_open))
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=Mock(return_value=shell)))
        assert watched() is is_open


def test_a_bar_of_bytes_goes_when_it_is_full(capsys):
    with progress(None, "B", title="birds.tgz", leave=False, show=True) as bar:
        bar.update(3_000_000)
    drawn = capsys.readouterr().err
    assert "birds.tgz" in drawn and drawn.rstrip(" ").endswith("\r")
