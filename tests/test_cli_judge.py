"`speciarl judge` with a language model: verdicts are kept, paid for once, and never invented."

import csv
import json
from pathlib import Path

import pytest
from judge_server import judge_server, judge_server_process, rule  # noqa: F401 - fixtures
from typer.testing import CliRunner

from speciarl.cli.app import app

PAIRS = (
    "dataset,label,answer\n"
    + "".join(f"oxford_pets,samoyed,strangeling number {i}\n" for i in range(40))
    + "oxford_pets,samoyed,samoyed\noxford_pets,samoyed,\n"
)
KEY = "sk-very-secret-0123456789"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text(PAIRS)
    return tmp_path


def judge(*arguments, url=None):
    server = ["--base-url", url, "--model", "judge"] if url else []
    return CliRunner().invoke(app, ["judge", "pairs.csv", *map(str, arguments), *server], prog_name="speciarl")


def rows(path="verdicts.csv"):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_pair_gets_its_own_verdict(folder, judge_server):
    result = judge("--judge", "llm", "--out", "verdicts.csv", url=judge_server.url)
    assert result.exit_code == 0, result.output
    found = rows()
    assert [row["category"] for row in found[:-1]] == [rule(row["label"], row["answer"]) for row in found[:-1]]
    assert found[-1]["source"] == "format" and {row["source"] for row in found[:-1]} == {"llm"}
    card = json.loads(Path("verdicts.card.json").read_text())
    assert (card["judge"]["model"], card["judge"]["prompt"], card["pairs"], card["without_verdict"]) == (
        "judge",
        "claim_single",
        42,
        0,
    )


def test_the_cascade_asks_only_what_the_trees_leave_and_says_so(folder, judge_server):
    result = judge("--judge", "cascade", "--out", "verdicts.csv", url=judge_server.url)
    assert "41 distinct: 40 asked of the second judge" in result.output
    assert {row["source"] for row in rows()} == {"llm", "tree", "format"}


def test_a_second_run_pays_for_nothing(folder, judge_server):
    judge("--judge", "llm", "--out", "one.csv", "--store", "verdicts.sqlite", url=judge_server.url)
    before = judge_server.stats()
    result = judge("--judge", "llm", "--out", "two.csv", "--store", "verdicts.sqlite", url=judge_server.url)
    assert result.exit_code == 0 and Path("one.csv").read_text() == Path("two.csv").read_text()
    after = judge_server.stats()
    assert (
        sum(v for v in after.values() if isinstance(v, int)) - sum(v for v in before.values() if isinstance(v, int))
        <= 4
    ), "only the probe's two questions"


def test_failed_pairs_have_no_verdict_and_are_asked_again(folder, judge_server):
    text = PAIRS.replace("number 3\n", "number 3 fault:400\n").replace("number 5\n", "number 5 fault:wrong_name\n")
    Path("pairs.csv").write_text(text)
    result = judge("--judge", "llm", "--out", "verdicts.csv", url=judge_server.url)
    if result.exit_code:  # a 4xx concerns the whole run: the server's words, at once
        assert result.exit_code == 2 and not Path("verdicts.csv").exists()
    Path("pairs.csv").write_text(PAIRS.replace("number 5\n", "number 5 fault:wrong_name\n"))
    result = judge("--judge", "llm", "--out", "verdicts.csv", url=judge_server.url)
    missing = [row for row in rows() if not row["category"]]
    assert (
        result.exit_code == 0
        and len(missing) == 1
        and missing[0]["source"] == "llm unparsable"
        and "no verdict: llm unparsable" in result.output
    )
    assert json.loads(Path("verdicts.card.json").read_text())["without_verdict"] == 1


def test_the_key_is_nowhere(folder, judge_server, monkeypatch):
    judge_server.set(key=KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    result = judge("--judge", "llm", "--out", "verdicts.csv", url=judge_server.url)
    assert result.exit_code == 0 and KEY not in result.output
    for path in folder.iterdir():
        assert KEY.encode() not in path.read_bytes(), path
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "x")
    result = judge("--judge", "llm", "--out", "refused.csv", url=judge_server.url)
    assert result.exit_code == 2 and KEY not in result.output and result.output.count("\n") == 1


def test_a_server_that_ignores_the_list_of_answers_is_named(folder, judge_server, caplog):
    judge_server.set(constrain="ignore")
    judge("--judge", "llm", "--out", "verdicts.csv", url=judge_server.url)
    assert json.loads(Path("verdicts.card.json").read_text())["judge"]["constraint"] == "ignored"


@pytest.mark.parametrize(
    "arguments, line",
    [
        (
            ["--judge", "llm"],
            "a language model as judge needs its server and its name: --base-url http://localhost:8000/v1 --model NAME",
        ),
        (
            ["--judge", "cascade", "--model", "judge"],
            "a language model as judge needs its server and its name: --base-url http://localhost:8000/v1 --model NAME",
        ),
        (["--judge", "oracle"], "unknown judge 'oracle': use one of taxonomy, llm, cascade"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(folder, arguments, line):
    result = judge(*arguments, "--out", "verdicts.csv")
    assert (result.exit_code, result.stderr) == (2, f"error: {line}\n")
    assert [path.name for path in folder.iterdir()] == ["pairs.csv"]


def test_a_judge_that_is_not_there(folder):
    result = judge("--judge", "llm", "--out", "verdicts.csv", url="http://127.0.0.1:9/v1")
    assert (
        result.exit_code == 2
        and result.stderr.startswith("error: no judge at http://127.0.0.1:9/v1 (")
        and result.stderr.count("\n") == 1
    )
    assert [path.name for path in folder.iterdir()] == ["pairs.csv"]
