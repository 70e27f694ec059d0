"What the judge cannot place never makes a score look better in silence: it stands beside it, with what decides it."

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from command_line import ok, refused
from judge_server import judge_server, judge_server_process  # noqa: F401 - fixtures

import speciarl
from speciarl.core.scale import MISSING, Category
from speciarl.judges.verdict import UNDECIDED, Verdict, undecided
from speciarl.metrics.matrix import compare_runs
from speciarl.metrics.runs import read_card
from speciarl.policy.predictions import Predictions, codes_of, read_predictions, to_table, write_predictions
from speciarl.report.scores import score_lines, score_table

UNPLACED = "zorbulated thing"  # nobody says this of a bird


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path, undecided, n, failed=0, **more):
    "A table of verdicts of which so many are undecided, and so many missing for another reason."
    rows = [("warbler", "less specific", "tree")] * (n - undecided - failed)
    rows += [(UNPLACED, "", "undecided")] * undecided + [("warbler", "", "llm failed")] * failed
    with Path(path).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["label", "answer", *more, "category", "source", "reason"])
        table.writerows([("hooded warbler", answer, *more.values(), *verdict, "") for answer, *verdict in rows])
    return path


def scores(path="out/scores.csv"):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def commands(output):
    "The two commands that close the gap, as lists of words behind `speciarl`."
    [line] = [line for line in output.splitlines() if "are undecided" in line]
    found = re.search(r"gap: speciarl (.*) \(they are wrong\), or speciarl (.*) \(a language model decides\)$", line)
    return [shlex.split(command) for command in found.groups()]


@pytest.mark.parametrize("count, n, told", [(1, 200, False), (1, 100, False), (101, 10_000, True), (4, 10, True)])
def test_more_than_one_percent_is_told(count, n, told):
    output = ok("score", write("v.csv", count, n), "--out", "out")
    [line] = scores()
    assert (line["C"], float(line["undecided"]), line["missing"]) == ("1", pytest.approx(count / n), "0")
    assert ("C strict" in line) is ("C strict" in output) is ("are undecided" in output) is told
    assert (
        ("C strict" in Path("out/scores.md").read_text()) is ("C strict" in Path("out/scores.tex").read_text()) is told
    )
    if told:
        assert float(line["C strict"]) == pytest.approx(1 - count / n) and line["S strict"] == line["S"] == "0.6"
        assert f"{count:,} of {n:,} answers ({count / n:.2%}) are undecided. To close the gap: " in output


def test_verdicts_that_are_missing_are_another_count():
    output = ok("score", write("v.csv", 0, 10, failed=4), "--out", "out")
    [line] = scores()
    assert (line["undecided"], line["missing"]) == ("0", "0.4") and "strict" not in output
    output = ok("score", write("w.csv", 1, 10, failed=4), "--out", "out", "--force")
    [line] = scores()
    assert (line["undecided"], line["missing"], line["n"]) == ("0.1", "0.4", "10")
    assert float(line["C strict"]) == pytest.approx(5 / 6, abs=1e-6), "what is missing stays left out"
    assert "1 of 10 answers (10.00%) are undecided" in output


def table(path, lines):
    Path(path).write_text("\n".join(["label,sample_id,rollout,category,source", *lines]) + "\n")
    return path


def test_compare_tells_undecided_and_missing_apart_as_score_does():
    kinds = ["generic,tree"] * 5 + [",undecided"] + [",llm failed"] * 4
    table("v.csv", [f"pug,{i},0,{kind}" for i, kind in enumerate(kinds)])
    table("w.csv", [f"pug,{i},0,generic,tree" for i in range(10)])
    told = ok("compare", "v.csv", "w.csv", "--out", "both.json")
    rows = json.loads(Path("both.json").read_text())["scores"]
    assert [(row["undecided"], row["missing"]) for row in rows] == [(0.1, 0.4), (0, 0)]
    [head] = [line for line in told.splitlines() if line.startswith("run ") and " HM " in line]
    assert head.split()[-2:] == ["undecided", "missing"]


def test_compare_counts_the_best_of_n_as_score_does():
    lines = []
    for sample, pair in {
        "a": ("undecided", "llm failed"),
        "b": ("undecided", "tree"),
        "c": ("llm failed",) * 2,
    }.items():
        for rollout, source in enumerate(pair):
            lines.append(f"pug,{sample},{rollout},{'generic' if source == 'tree' else ''},{source}")
    one, _, best, _ = compare_runs([table("v.csv", lines), table("w.csv", lines)], n_boot=50).scores
    assert (one["undecided"], one["missing"]) == (pytest.approx(2 / 6), pytest.approx(3 / 6))
    assert (best["answers"], best["undecided"], best["missing"]) == (
        "best of 2",
        pytest.approx(1 / 3),
        pytest.approx(1 / 3),
    )


def test_a_group_cannot_hide_in_the_whole():
    rows = scores(write("a.csv", 0, 990, dataset="birds")) + scores(write("b.csv", 5, 10, dataset="cub200"))
    report = speciarl.score(rows, by="dataset")
    assert [line.in_doubt for line in report.lines] == [False, True, False]
    assert report.advice.startswith("cub200: 5 of 10 answers (50.00%) are undecided")


def test_the_best_of_n_is_undecided_only_where_nothing_else_was_said():
    codes = np.array([[MISSING, MISSING], [MISSING, Category.GENERIC], [MISSING, MISSING]])
    unplaced = np.array([[True, False], [True, False], [False, False]])
    one, best = score_lines("all", codes, unplaced=unplaced)
    assert (one.undecided, best.undecided) == (2, 1)
    assert best.intervals["correctness"][0] == 1 and best.strict["correctness"][0] == 0.5
    shown = score_table([one, best])
    missing = [row[list(shown.columns).index("missing")] for row in shown.rows]
    assert missing == [pytest.approx(3 / 6), pytest.approx(1 / 3)]


def test_what_counts_as_undecided():
    assert all(undecided(None, source) and undecided("", source) for source in (*UNDECIDED, "", None))
    assert not any(
        undecided(None, source) for source in ("llm failed", "unknown label", "in flight", "not in the store")
    )
    assert not undecided(Category.WRONG, "undecided") and not undecided("wrong", "undecided")


def test_the_command_decides_a_table():
    write("v.csv", 4, 10)
    strict, cascade = commands(ok("score", "v.csv"))
    assert strict == ["judge", "v.csv", "--out", "v-strict.csv", "--strict"]
    ok(*strict)
    assert "undecided." not in ok("score", "v-strict.csv", "--out", "out") and scores()[0]["C"] == "0.6"
    assert list(scores("v-strict.csv")[0]) == ["label", "answer", "category", "source", "reason"]
    assert cascade[:5] == ["judge", "v.csv", "--out", "v-cascade.csv", "--judge"] and cascade[5:6] == ["cascade"]


def test_the_command_knows_the_label_tree_that_was_named():
    Path("p q.csv").write_text(f"label,answer\nhooded warbler,warbler\nhooded warbler,{UNPLACED}\n")
    ok("judge", "p q.csv", "--out", "v w.csv", "--dataset", "birds")
    strict, _ = commands(ok("score", "v w.csv"))
    assert strict == ["judge", "v w.csv", "--dataset", "birds", "--out", "v w-strict.csv", "--strict"]
    ok(*strict)
    assert [row["category"] for row in scores("v w-strict.csv")] == ["less specific", "wrong"]


def test_the_command_knows_how_the_columns_are_called_and_what_an_empty_answer_is():
    Path("p.csv").write_text(f"truth,said\nhooded warbler,warbler\nhooded warbler,{UNPLACED}\nhooded warbler,\n")
    ok(
        "judge",
        "p.csv",
        "--out",
        "v.csv",
        "--label-column",
        "truth",
        "--answer-column",
        "said",
        "--empty-answer",
        "abstain",
    )
    strict, _ = commands(ok("score", "v.csv"))
    ok(*strict)
    assert [row["category"] for row in scores("v-strict.csv")] == ["less specific", "wrong", "abstain"]


def test_the_command_asks_a_language_model_for_what_is_undecided_and_for_nothing_else(judge_server):
    strict, cascade = commands(ok("score", write("v.csv", 4, 10)))
    words = {"URL": judge_server.url, "NAME": "judge"}
    told = ok(*[words.get(word, word) for word in cascade])
    assert "1 asked of the second judge" in told
    output = ok("score", "v-cascade.csv", "--out", "out")
    assert scores()[0]["undecided"] == "0" and "are undecided" not in output


def published(path, n=10, count=4):
    rows = []
    for i in range(n):
        sample = dict(sample_id=f"{i}", dataset="birds", split="test", label="hooded warbler", prompt="general")
        answer = UNPLACED if i < count else "warbler"
        verdict = Verdict(None, "undecided") if i < count else Verdict(Category.LESS_SPECIFIC, "tree")
        rows.append({**sample, "rollout": 0, "text": None, "answer": answer, **verdict._asdict()})
    write_predictions(path, Predictions({}, to_table(rows)))


def test_the_command_decides_published_predictions_and_runs():
    published("p.parquet")
    strict, _ = commands(ok("score", "p.parquet"))
    assert strict == ["evaluate", "--predictions", "p.parquet", "--out", "p-strict", "--strict"]
    assert "are undecided" not in ok(*strict) and read_card("p-strict")["scores"]["C"] == 0.6
    told = ok("evaluate", "--predictions", "p.parquet", "--out", "run")
    assert told.startswith("10 answers, 0 format failures, 4 undecided, 0 no verdict, ")
    strict, _ = commands(told)
    assert strict == ["evaluate", "--predictions", "run/predictions.parquet", "--out", "run-strict", "--strict"]
    ok(*strict)
    assert read_card("run-strict")["counts"]["undecided"] == 0
    assert codes_of(read_predictions("run/predictions.parquet")).undecided.sum() == 4


def test_where_a_model_was_asked_or_a_table_cannot_be_judged_no_command_is_named():
    rows = [dict(label="a", answer="b", category=c, source=s) for c, s in (("wrong", "llm"), ("", "undecided"))]
    assert speciarl.score(rows).advice.endswith("by the language model too: nothing but the strict values is sure")
    Path("bare.csv").write_text("category,who\nwrong,a\n,b\n")
    assert "judge the answers again: speciarl judge, with --strict" in ok("score", "bare.csv")


def test_a_report_in_a_notebook_says_it():
    report = speciarl.score(scores(write("v.csv", 4, 10)))
    assert "speciarl.judge(table, strict=True)" in report._repr_html_() and "C strict" in report._repr_html_()
    assert report.advice in report._repr_markdown_()
    decided = speciarl.score(speciarl.judge(scores("v.csv"), strict=True))
    assert not decided.advice and "strict" not in decided._repr_html_()


@pytest.mark.parametrize("kind", ["llm", "cascade"])
def test_a_strict_judge_asks_no_model(kind):
    write("v.csv", 4, 10)
    wrong = (
        f"the judge {kind} cannot be strict: a language model decides what the label trees cannot place; leave out "
        "strict, or use taxonomy"
    )
    assert refused("judge", "v.csv", "--out", "w.csv", "--strict", "--judge", kind) == wrong
    published("p.parquet")
    assert refused("evaluate", "--predictions", "p.parquet", "--out", "run", "--strict", "--judge", kind) == wrong
    assert sorted(path.name for path in Path().iterdir()) == ["p.parquet", "v.csv"]
