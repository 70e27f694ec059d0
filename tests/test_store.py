"""The verdict store: what is stored comes back, what is missing is never stored, and files are exported whole and
imported whole or not at all.

Every test of the interface runs on SQLite and, where redis-server is installed, on a real Redis of its own.
"""

import json
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusal import message

from speciarl.core.scale import Category, UserError
from speciarl.judges import store as module
from speciarl.judges.choose import StoredJudge
from speciarl.judges.store import open_store
from speciarl.judges.verdict import Verdict

PAIRS = [("samoyed", "spitz"), ("samoyed", "dog"), ("samoyed", "corgi mix")]
VERDICTS = [
    Verdict(Category.LESS_SPECIFIC, "llm"),
    Verdict(Category.GENERIC, "llm", "a dog"),
    Verdict(None, "llm", "no answer"),
]


@contextmanager
def redis_server(folder: Path, *options: str):
    "A Redis server of our own on a free port, saving nothing; yields its port and process."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "redis-server",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(folder),
        "--loglevel",
        "warning",
        *options,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port, process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as (port, _):
        yield port


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs_redis)])
def url(request, tmp_path):
    "The address of an empty store."
    if request.param == "sqlite":
        return str(tmp_path / "v.sqlite")
    import redis

    port = request.getfixturevalue("redis_port")
    with redis.Redis(port=port) as client:
        client.flushall()
    return f"redis://127.0.0.1:{port}/0"


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_verdicts_come_back_in_order_and_missing_ones_are_not_stored(url):
    with open_store(url) as store:
        store.put_many("j", PAIRS, VERDICTS)
        assert store.get_many("j", [PAIRS[1], ("x", "y"), PAIRS[0], PAIRS[2], PAIRS[1]]) == [
            VERDICTS[1],
            None,
            VERDICTS[0],
            None,
            VERDICTS[1],
        ]
        assert store.get_many("another", PAIRS) == [None] * 3 and store.get_many("j", []) == [] and store.count() == 2
        store.put_many("j", [], [])
    with open_store(url) as store:
        for _ in range(2):  # from the store, from memory
            assert store.get_many("j", PAIRS) == [*VERDICTS[:2], None]
            assert store.get_many("j", PAIRS)[0].category is Category.LESS_SPECIFIC
        assert store.counts() == {"j": 2}


def test_the_first_verdict_stays(url):
    with open_store(url) as store, open_store(url) as other:
        store.put_many("j", PAIRS[:1] * 2, VERDICTS[:2])
        other.put_many("j", PAIRS[:1], [Verdict(Category.WRONG, "llm")])
        assert store.get_many("j", PAIRS[:1]) == other.get_many("j", PAIRS[:1]) == VERDICTS[:1] and store.count() == 1


def test_keys_are_taken_as_they_are(url):
    with open_store(url) as store:
        store.put_many("j", [("a", "b / c"), ("1 2", "3")], [Verdict(Category.WRONG, "tree")] * 2)
        assert store.get_many("j", [("a", "b c"), ("a", "B / C"), ("1", " 23"), ("1 23", ""), ("a", "b / c")]) == [
            None
        ] * 4 + [Verdict(Category.WRONG, "tree")]


def test_what_one_store_finds_missing_another_may_add(url):
    with open_store(url) as store, open_store(url) as other:
        assert store.get_many("j", PAIRS) == [None] * 3
        other.put_many("j", PAIRS, VERDICTS)
        assert store.get_many("j", PAIRS) == [*VERDICTS[:2], None]


def test_lengths_must_agree(url):
    with open_store(url) as store, pytest.raises(ValueError):
        store.put_many("j", PAIRS, VERDICTS[:1])
    with open_store(url) as store:
        assert store.count() == 0


def test_text_that_no_file_can_hold_is_left_out(url):
    with open_store(url) as store:
        store.put_many("j", [("a", "\ud800"), ("a", "b")], [Verdict(Category.WRONG, "s", "\udfff")] * 2)
        assert store.get_many("j", [("a", "\ud800"), ("a", "b")]) == [None, Verdict(Category.WRONG, "s", "?")]
        assert store.claim_many("j", [("a", "\ud800"), ("a", "c")], 60) == [True, True]
        store.release_many("j", [("a", "\ud800"), ("a", "c")])


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=9) | st.sampled_from(
    ["'; DROP TABLE verdicts; --", '"', "\0", "a\0b", "a\0c", "🦜", "é", "e\u0301", "\u202eabc", "", "long " * 20_000]
)


@given(st.lists(st.tuples(TEXT, TEXT), unique=True, max_size=5))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_key(url, pairs):
    name = str(time.monotonic_ns())  # a new judge each time
    given_out = [Verdict(Category(i % 6), str(i), "\0'\"🦜") for i in range(len(pairs))]
    with open_store(url) as store:
        assert store.claim_many(name, pairs, 60) == [True] * len(pairs)
        store.put_many(name, pairs, given_out)
        assert store.get_many(name, pairs) == given_out == store.get_many(name, pairs)
    with open_store(url) as store:
        assert store.get_many(name, pairs) == given_out


def test_memory_is_bounded_and_right(url, monkeypatch):
    monkeypatch.setattr(module, "_REMEMBERED", 10)
    monkeypatch.setattr(module, "_PART", 7)
    pairs = [("label", f"answer {i}") for i in range(25)] + [("label", "x" * 2000)]
    given_out = [Verdict(Category(i % 6), str(i)) for i in range(26)]
    with open_store(url) as store:
        store.put_many("j", pairs, given_out)
        for part in (pairs, pairs[:6], pairs[3:9], pairs[-1:], pairs):
            assert store.get_many("j", part) == [given_out[pairs.index(pair)] for pair in part]
            assert len(store._memory["j"]) == store._remembered <= 10 and pairs[-1] not in store._memory["j"]
        store.put_many("k", pairs, given_out)
        assert (
            store.get_many("k", pairs[:8]) == given_out[:8]
            and sum(map(len, store._memory.values())) == store._remembered <= 10
        )


# --- claims -----------------------------------------------------------------------------------------------------------


def test_claims_exclude_others_end_and_are_the_owners(url):
    with open_store(url) as ours, open_store(url) as theirs:
        assert ours.claim_many("j", PAIRS[:2], 60) == [True, True]
        assert ours.claim_many("j", PAIRS, 60) == [
            False,
            False,
            True,
        ]  # not even ours twice: two threads may share a store
        assert theirs.claim_many("j", PAIRS, 60) == [False] * 3 and theirs.claim_many("k", PAIRS, 60) == [True] * 3
        theirs.release_many("j", PAIRS)
        theirs.renew_many("j", PAIRS, 0.001)
        assert theirs.claim_many("j", PAIRS, 60) == [False] * 3
        ours.release_many("j", PAIRS[:1])
        assert theirs.claim_many("j", PAIRS, 60) == [True, False, False]
        ours.renew_many("j", PAIRS, 0.05)
        time.sleep(0.15)
        assert theirs.claim_many("j", PAIRS, 60) == [False, True, True]  # taken over
        ours.release_many("j", PAIRS)
        assert ours.claim_many("j", PAIRS, 60) == [False] * 3


def test_what_has_a_verdict_cannot_be_claimed_and_a_verdict_ends_the_claim(url):
    with open_store(url) as ours, open_store(url) as theirs:
        assert ours.claim_many("j", PAIRS, 60) == [True] * 3
        ours.put_many("j", PAIRS, VERDICTS)
        assert theirs.claim_many("j", PAIRS, 60) == [False] * 3  # two verdicts, one running claim
        ours.release_many("j", PAIRS)
        assert theirs.claim_many("j", PAIRS, 60) == [False, False, True]


# --- export and import ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_exported_verdicts_come_back(url, tmp_path, ending):
    pairs = [*PAIRS[:2], ('"', "a\0b\n🦜"), ("l", "x" * 50_000)]
    given_out = [*VERDICTS[:2], Verdict(Category.WRONG, "s", "r"), Verdict(Category.MORE_SPECIFIC, "s")]
    path = tmp_path / f"out{ending}"
    with open_store(url) as store:
        store.put_many("j", pairs, given_out)
        store.put_many("k", PAIRS[:1], VERDICTS[1:2])
        assert store.export(path, card={"model": "m"}) == 5
        first = path.read_bytes()
        store.export(path, card={"model": "m"})
        assert path.read_bytes() == first
    with open_store(":memory:") as copy:
        copy.put_many("j", PAIRS[:1], [Verdict(Category.WRONG, "earlier")])
        assert copy.import_(path) == copy.import_(path) == {"model": "m"}
        assert copy.counts() == {"j": 4, "k": 1}
        assert copy.get_many("j", pairs) == [Verdict(Category.WRONG, "earlier"), *given_out[1:]]
        assert copy.export(path, identity="k") == 1
    with open_store(url) as store:
        assert store.import_(path) == {} and store.count() == 5


def test_an_empty_store_is_exported_too(url, tmp_path):
    with open_store(url) as store:
        for name in ("v.jsonl", "v.parquet"):
            assert store.export(tmp_path / name) == 0 and store.import_(tmp_path / name) == {}
        header = json.loads((tmp_path / "v.jsonl").read_text())
        assert header == {"format": "speciarl verdicts", "version": 1, "verdicts": 0, "card": {}}


ROW = {"identity": "j", "label": "samoyed", "answer": "dog", "category": "generic", "source": "llm", "reason": ""}
HEADER = {"format": "speciarl verdicts", "version": 1, "verdicts": 2, "card": {}}
OTHER = ROW | {"answer": "spitz"}
AGAIN = "; export the verdicts again"


def lines(*values) -> bytes:
    return b"".join(value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n" for value in values)


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", ": not a file of exported verdicts; make one with the export of a verdict store"),
        (lines(ROW), ":1: not a file of exported verdicts; make one with the export of a verdict store"),
        (
            lines(HEADER | {"version": 2}, ROW, OTHER),
            ":1: the format is version 2, this package reads version 1; use a matching version of speciarl",
        ),
        (lines({"format": "speciarl verdicts", "version": 1}), ":1: the header lacks 'verdicts' or 'card'" + AGAIN),
        (lines(HEADER, ROW, b"{\n"), ":3: not a line of JSON in UTF-8" + AGAIN),
        (lines(HEADER, ROW, b'"\xff"\n'), ":3: not a line of JSON in UTF-8" + AGAIN),
        (lines(HEADER, ROW, b"[" * 100_000), ":3: not a line of JSON in UTF-8" + AGAIN),
        (
            lines(HEADER, ROW, OTHER | {"category": "less_specific"}),
            ":3: unknown category 'less_specific': use one of wrong, abstain, generic, less specific, specific, more "
            "specific",
        ),
        (
            lines(HEADER, ROW, {"label": "a"}),
            ":3: a verdict has the fields identity, label, answer, category, source, reason and no others",
        ),
        (
            lines(HEADER, ROW, [1]),
            ":3: a verdict has the fields identity, label, answer, category, source, reason and no others",
        ),
        (lines(HEADER, ROW, OTHER | {"answer": None}), ":3: 'answer' is no text" + AGAIN),
        (lines(HEADER, ROW, OTHER | {"answer": "\ud800"}), ":3: 'answer' is no text" + AGAIN),
        (
            lines(HEADER, ROW, ROW | {"category": "wrong"}),
            ":3: the pair 'samoyed', 'dog' has two categories; remove one",
        ),
        (lines(HEADER, ROW), ": 1 verdicts, but the header says 2; the file is incomplete, fetch it again"),
        (lines(HEADER, ROW, OTHER)[:-10], ":3: not a line of JSON in UTF-8" + AGAIN),
        (
            lines(HEADER, ROW, OTHER | {"reason": "x" * 10_000_001}),
            ":3: the line is longer than 10,000,000 bytes" + AGAIN,
        ),
    ],
)
def test_damaged_exports_are_refused_whole(tmp_path, content, expected):
    path = tmp_path / "v.jsonl"
    path.write_bytes(content)
    with open_store(tmp_path / "v.sqlite") as store:
        assert message(store.import_, path) == f"{path}{expected}"
        assert store.count() == 0


def test_damaged_parquet_is_refused_whole(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "v.parquet"
    with open_store(":memory:") as store:
        path.write_bytes(b"PAR1 but not really")
        assert message(store.import_, path).startswith(f"{path} is not a sound Parquet file (")
        parquet.write_table(pa.table({"x": [1]}), path)
        assert (
            message(store.import_, path)
            == f"{path}: not a file of exported verdicts; make one with the export of a verdict store"
        )
        table = pa.Table.from_pylist([ROW, OTHER | {"category": "Wrong"}]).replace_schema_metadata(
            {"speciarl": json.dumps(HEADER)}
        )
        parquet.write_table(table, path)
        assert message(store.import_, path).startswith(f"{path}: row 2: unknown category 'Wrong': use one of ")
        parquet.write_table(table, path)
        path.write_bytes(path.read_bytes()[:-100])
        assert message(store.import_, path).startswith(f"{path} is not a sound Parquet file (")
        assert store.count() == 0


def test_other_endings_and_missing_files(tmp_path):
    with open_store(":memory:") as store:
        for action in (store.export, store.import_):
            assert (
                message(action, tmp_path / "v.csv")
                == f"{tmp_path / 'v.csv'}: verdicts are exported as .jsonl or .parquet; choose one of these endings"
            )
        assert message(store.import_, tmp_path / "v.jsonl") == f"{tmp_path / 'v.jsonl'}: no such file; check the path"
        assert message(store.import_, tmp_path / "v.parquet").startswith(
            f"{tmp_path / 'v.parquet'}: cannot be read (No "
        )
        assert message(store.import_, tmp_path).endswith("choose one of these endings")


# --- the stored judge -------------------------------------------------------------------------------------------------


class Fake:
    "Says what `says` says of an answer (generic by default), in batches of two through `done`."

    def __init__(self, says=lambda answer: Category.GENERIC, fails_after=None):
        self.identity, self.says, self.fails_after, self.seen = "fake", says, fails_after, []

    def __call__(self, pairs, datasets=None, done=None):
        verdicts = [Verdict(self.says(answer), "fake", answer) for _, answer in pairs]
        for start in range(0, len(pairs), 2):
            if self.fails_after is not None and len(self.seen) >= self.fails_after:
                raise UserError("the judge is gone; start it again")
            indices = list(range(start, min(start + 2, len(pairs))))
            self.seen += [(pairs[i], datasets[i]) for i in indices]
            if done:
                done(indices, [verdicts[i] for i in indices])
        return verdicts


class Showing(Fake):
    def shown(self, text):
        return " ".join(text.split())


def test_a_stored_judge_asks_once_and_reports_everything_once(url):
    with open_store(url) as store:
        judge, told = StoredJudge(fake := Fake(), store, chunk=3), {}
        pairs = [("l", f"a{i % 7}") for i in range(20)]
        for _ in range(2):
            told.clear()
            verdicts = judge(pairs, done=lambda indices, given: told.update(zip(indices, given, strict=True)))
            assert [v.reason for v in verdicts] == [answer for _, answer in pairs] and told == dict(enumerate(verdicts))
        assert (judge.hits, judge.asked, judge.waited, len(fake.seen)) == (7, 7, 0, 7) and judge.identity == "fake"
        assert judge([]) == []


def test_missing_verdicts_are_returned_and_asked_again(url):
    with open_store(url) as store, open_store(url) as other:
        fake = Fake(lambda answer: None if answer == "dog" else Category.WRONG)
        assert [v.category for v in StoredJudge(fake, store)(PAIRS)] == [0, None, 0]
        assert [v.category for v in StoredJudge(fake, other)(PAIRS)] == [0, None, 0]  # the claim was given back
        assert len(fake.seen) == 4 and store.count() == 2


def test_a_judge_that_fails_in_the_middle_loses_nothing(url):
    pairs = [("l", f"a{i}") for i in range(10)]
    with open_store(url) as store, open_store(url) as other:
        assert message(StoredJudge(Fake(fails_after=4), store), pairs) == "the judge is gone; start it again"
        assert store.count() == 4
        judge = StoredJudge(fake := Fake(), other)
        assert all(v.category is Category.GENERIC for v in judge(pairs)) and len(fake.seen) == judge.asked == 6


def test_pairs_that_look_the_same_to_the_judge_are_one_and_data_sets_count_only_without_shown(url):
    pairs, names = [("l", "a  b"), ("l", "a b"), ("l", "a b"), ("l", "a b")], ["cub200", "cub200", "", None]
    with open_store(url) as store:
        showing = Showing()
        StoredJudge(showing, store)(pairs, names)
        assert len(showing.seen) == 1
        plain = Fake()
        plain.identity = "plain"
        judge = StoredJudge(plain, store)
        judge(pairs, names)
        assert plain.seen == [(("l", "a  b"), "cub200"), (("l", "a b"), "cub200"), (("l", "a b"), "")]
        assert judge.store_identity("") == judge.store_identity() == "plain" != judge.store_identity("cub200")


def test_a_replay_asks_nobody(url):
    with open_store(url) as store:
        assert message(StoredJudge, None, store) == f"{store.name} holds verdicts of 0 judges; import some first"
        StoredJudge(Showing(), store)([("l", "a b")])
        replay = StoredJudge(None, store, shown=Showing().shown)
        assert [v.category for v in replay([("l", "a   b"), ("l", "c")], ["cub200", None])] == [Category.GENERIC, None]
        assert replay([("l", "c")]) == [Verdict(None, "not in the store")] and replay.identity == "fake"
        store.put_many("another", PAIRS, VERDICTS)
        assert (
            message(StoredJudge, None, store)
            == f"{store.name} holds verdicts of 2 judges; name one by its identity: another, fake"
        )
        assert StoredJudge(None, store, identity="another")(PAIRS[:1]) == VERDICTS[:1]


def test_redis_is_not_imported_without_a_redis_address(tmp_path):
    code = (
        "import sys; from speciarl.judges.store import open_store; open_store(sys.argv[1]); assert not {'redis', "
        "'pyarrow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "v.sqlite"], check=True)


def test_no_pickle_is_involved():
    assert "pickle" not in Path(module.__file__).read_text()


# --- addresses and files that are no store ----------------------------------------------------------------------------


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for url in ("a.sqlite", "sqlite:///a.sqlite", f"sqlite:///{tmp_path}/a.sqlite", tmp_path / "a.sqlite"):
        with open_store(url) as store:
            store.put_many("j", PAIRS[:1], VERDICTS[:1])
            assert store.count() == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.sqlite"}


@pytest.mark.parametrize("url", ["mysql://localhost/v", "http://x", "sqlite://v.sqlite", "sqlite:///"])
def test_unknown_addresses(url):
    scheme = url.partition(":")[0]
    assert (
        message(open_store, url)
        == f"unknown kind of verdict store {scheme!r}: give a path, sqlite:///PATH or redis://HOST:PORT/DB"
    )


@pytest.mark.parametrize(
    "url, shown",
    [
        ("redis://h:port/0", "redis://h:port/0"),
        ("redis://h:1/x", "redis://h:1/x"),
        ("redis://u:secret@h:1", "redis://h:1"),
    ],
)
def test_bad_redis_addresses(url, shown):
    assert (
        message(open_store, url)
        == f"{shown} is no address of a verdict store: write redis://HOST:PORT/DB with two numbers"
    )


def test_no_server():
    text = message(open_store, "redis://user:secret@127.0.0.1:1/0?protocol=3")
    assert text.startswith("cannot use the verdict store redis://127.0.0.1:1/0: ") and text.endswith(
        "; check that the server runs and may be used, then run again"
    )
    assert "secret" not in text


@pytest.mark.parametrize("content", [b"label,answer\n" * 100, b"\x00" * 4096, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_store_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "v.sqlite"
    path.write_bytes(content)
    assert (
        message(open_store, path)
        == f"{path} is not a sound verdict store (file is not a database); delete it or choose another path"
    )
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("table", ["bookmarks", "verdicts"])
def test_the_database_of_another_program_is_refused_and_kept(tmp_path, table):
    path = tmp_path / "v.sqlite"
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE {table} (url TEXT)")
    connection.close()
    before = path.read_bytes()
    assert (
        message(open_store, path)
        == f"{path} is not a sound verdict store (it holds the table {table!r}); delete it or choose another path"
    )
    assert path.read_bytes() == before


def test_a_later_layout_is_refused(tmp_path):
    path = tmp_path / "v.sqlite"
    open_store(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    assert (
        message(open_store, path)
        == f"{path} is not a sound verdict store (its layout is version 2, this package knows version 1); delete it "
        "or choose another path"
    )


def filled(path: Path) -> bytearray:
    pairs = [("label", f"answer {i}" * 20) for i in range(2000)]
    with open_store(path) as store:
        store.put_many("j", pairs, [VERDICTS[0]] * 2000)
    return bytearray(path.read_bytes())


def test_a_store_damaged_in_the_middle_is_reported(tmp_path):
    path = tmp_path / "v.sqlite"
    content = filled(path)
    content[8 * 4096 :] = b"\xff" * len(content[8 * 4096 :])
    path.write_bytes(content)
    with open_store(path) as store:
        text = message(store.get_many, "j", [("label", f"answer {i}" * 20) for i in range(2000)])
    assert (
        text
        == f"{path} is not a sound verdict store (database disk image is malformed); delete it or choose another path"
    )


def test_a_truncated_store_is_reported(tmp_path):
    path = tmp_path / "v.sqlite"
    path.write_bytes(filled(path)[:20_000])

    def use():
        with open_store(path) as store:
            store.get_many("j", [("label", f"answer {i}" * 20) for i in range(2000)])

    assert (
        message(use)
        == f"{path} is not a sound verdict store (database disk image is malformed); delete it or choose another path"
    )


def test_a_place_that_cannot_hold_a_store(tmp_path):
    advice = "check the folder and that no other program holds the file"
    assert (
        message(open_store, tmp_path)
        == f"cannot use the verdict store {tmp_path}: unable to open database file; {advice}"
    )
    (tmp_path / "file").write_text("x")
    inside = tmp_path / "file" / "v.sqlite"
    assert message(open_store, inside).startswith(f"cannot use the verdict store {inside}: ")
    assert message(open_store, "/proc/v.sqlite").startswith(
        "cannot use the verdict store /proc/v.sqlite: "
    )  # read-only even for root


# --- a Redis server that is wrong or lost -----------------------------------------------------------------------------


@pytest.mark.needs_redis
def test_a_server_that_forgets_is_refused(tmp_path):
    with redis_server(tmp_path, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lfu") as (port, _):
        url = f"redis://127.0.0.1:{port}/0"
        assert (
            message(open_store, url)
            == f"{url} forgets verdicts when its memory is full: set its maxmemory-policy to noeviction"
        )


@pytest.mark.needs_redis
def test_a_database_in_other_use_is_refused(redis_port):
    import redis

    url = f"redis://127.0.0.1:{redis_port}/7"
    with redis.Redis(port=redis_port, db=7, decode_responses=True) as client:
        open_store(url).close()
        client.set(module._redis_key("verdict", "j", ("a", "b")), "not JSON")
        with open_store(url) as store:
            expected = f"{url} holds something that is no verdict under speciarl:verdict: use another database number"
            assert message(store.get_many, "j", [("a", "b")]) == expected
            client.set(module._redis_key("verdict", "j", ("a", "b")), '["a", "b", "good", "s", "r"]')
            assert message(store.get_many, "j", [("a", "b")]) == expected
        client.set("speciarl:layout", 2)
        assert (
            message(open_store, url)
            == f"{url} holds verdicts of layout 2, this package knows 1: use another database number"
        )
        client.flushdb()


@pytest.mark.needs_redis
def test_a_lost_server_is_one_line(tmp_path):
    with redis_server(tmp_path) as (port, process):
        store = open_store(f"redis://127.0.0.1:{port}/0")
        store.put_many("j", PAIRS, VERDICTS)
        process.kill()
        process.wait()
        for action in (
            lambda: store.get_many("k", PAIRS),
            lambda: store.put_many("j", PAIRS, VERDICTS),
            lambda: store.claim_many("j", PAIRS, 1),
            store.count,
        ):
            assert message(action).startswith(f"cannot use the verdict store redis://127.0.0.1:{port}/0: ")


@pytest.mark.needs_redis
def test_a_password_is_in_no_message(tmp_path):
    with redis_server(tmp_path, "--requirepass", "s3cret") as (port, _):
        with open_store(f"redis://:s3cret@127.0.0.1:{port}/0") as store:
            store.put_many("j", PAIRS, VERDICTS)
            assert store.name == f"redis://127.0.0.1:{port}/0" and store.count() == 2
        text = message(open_store, f"redis://:wr0ng@127.0.0.1:{port}/0")
        assert text.startswith(f"cannot use the verdict store redis://127.0.0.1:{port}/0: ") and "wr0ng" not in text
