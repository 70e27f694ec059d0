"The command line on runs: every official layout, published predictions, a judge on a server, and what is refused."

import csv
import json
from pathlib import Path

import pytest
import torch
from command_line import call, ok, refused
from judge_server import judge_server, judge_server_process  # noqa: F401 - fixtures
from layouts import BUILDERS, build, classes_of, plan

from speciarl.data.samples import Sample
from speciarl.data.trees import load_trees
from speciarl.judges import verdict
from speciarl.judges.tree import TreeJudge
from speciarl.metrics.matrix import list_runs
from speciarl.metrics.runs import read_card, run_benchmark, run_settings
from speciarl.policy.predictions import Predictions, read_predictions, to_table, write_predictions

ANSWERS = ("hooded warbler", "bird", "ovenbird", "a quux", None, "warbler")


def table(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    return tmp_path


def toy(out, n=1, count=12, name="toy"):
    "A run of a policy that gives `ANSWERS` in turn, `n` to each image of two classes."
    samples = [
        Sample(f"{i}.png", Path(f"{i}.png"), ("hooded warbler", "ovenbird")[i % 2], "birds") for i in range(count)
    ]
    judge = TreeJudge(load_trees())

    def ask(samples, path):
        rows = [
            dict(
                sample_id=s.id,
                dataset=s.dataset,
                split=s.split,
                label=s.label,
                prompt="general",
                rollout=j,
                answer=ANSWERS[(i * (j + 1)) % 6],
                text=f"<think>an ovenbird?</think> <answer>{ANSWERS[(i * (j + 1)) % 6]}</answer>",
            )
            for i, s in enumerate(samples)
            for j in range(n)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    return run_benchmark(out, samples, ask, judge, run_settings(name, samples, "general", n, 0, judge.identity))


# Every layout


def test_a_small_folder_in_each_official_layout_evaluates_from_the_command_line(folder):
    names = list(BUILDERS)
    for name in names:
        build(
            name,
            folder / "data" / name,
            plan(
                name,
                dict.fromkeys(("train", "val", "test"), 3) if name == "fgvc_aircraft" else None,
                classes_of(name)[:3] if name == "fgvc_aircraft" else None,
            ),
        )
    (folder / "m.yaml").write_text(
        "models: [fieldguide-base]\nlimit: 3\ndata: [" + ", ".join(f"{name}=data/{name}" for name in names) + "]\n"
    )
    ok("evaluate", "--matrix", "m.yaml", "--out", "runs")
    found = list_runs("runs")
    assert (
        len(found) == len(names)
        and all(line.finished and line.n == 1 for line in found)
        and sorted(line.datasets for line in found) == sorted(names)
    )
    for line in found:
        assert read_card(line.run)["counts"]["answers"] == 3
    assert "classes, the 10 that are surely worst" in ok("score", found[0].run)
    assert "2 answers" in ok(
        "evaluate",
        "--model",
        "fieldguide-base",
        "--data",
        "cub200=data/cub200",
        "--limit",
        2,
        "--split",
        "train",
        "--out",
        "one",
    )
    assert {row["split"] for row in read_predictions("one/predictions.parquet").rows()} == {"train"}
    assert refused(
        "evaluate", "--model", "fieldguide-base", "--data", "cub200=data/cub200", "--split", "coop-test", "--out", "two"
    ).startswith("cub200 has no split 'coop-test'")
    assert not Path("two").exists()


# What was published


def test_a_run_and_its_published_predictions_give_the_same_scores(folder):
    toy("run", n=4)
    (folder / "published.parquet").write_bytes(Path("run/predictions.parquet").read_bytes())
    printed = ok("score", "run", "--out", "a")
    ok("score", "published.parquet", "--out", "b")
    stems = {"scores", "classes", "curve", "selectors", "confidence"}
    assert {p.stem for p in Path("a").iterdir()} == stems == {p.stem for p in Path("b").iterdir()}
    for stem in stems:
        assert Path(f"a/{stem}.csv").read_bytes() == Path(f"b/{stem}.csv").read_bytes()
    assert all(
        heading in printed
        for heading in (
            "best of k",
            "one answer of many",
            "agreement as confidence",
            "best of 4 (oracle)",
            "majority vote",
        )
    )
    assert [row["class"] for row in table("a/classes.csv")] == ["hooded warbler", "ovenbird"] and [
        row["k"] for row in table("a/curve.csv")
    ] == ["1", "2", "4"]
    assert refused("score", "run", "--out", "a").startswith("a/scores.csv exists; choose another --out or pass --force")


def test_nothing_is_written_where_one_of_the_tables_exists(folder):
    "The scores were written before the table of classes was found to be there."
    toy("run", n=2)
    Path("out").mkdir()
    Path("out/curve.csv").write_text("mine")
    line = "out/curve.csv exists; choose another --out or pass --force"
    assert refused("score", "run", "--out", "out") == line
    assert [path.name for path in Path("out").iterdir()] == ["curve.csv"]


def test_runs_with_several_answers_are_compared_without_mcnemar(folder):
    "There are no rows of that test then; the table of none ended in a traceback."
    toy("one", n=2)
    toy("two", n=2)
    printed = ok("compare", "one", "two")
    assert "best of 2" in printed and "McNemar" not in printed


def test_a_comparison_is_printed_as_intervals_and_written_as_plain_json(folder):
    "Scores were printed as Python's tuples, and the test of McNemar as a class, in the file as well."
    toy("one")
    toy("two")
    printed = ok("compare", "one", "two", "--out", "compared.json")
    assert "(" not in printed and "McNemar's tests of correctness" in printed
    assert ".000 [.00, .00]" in printed
    [row] = json.loads(Path("compared.json").read_text(), parse_constant=pytest.fail)["mcnemar"]
    assert row == dict(first="one", second="two", first_only=0, second_only=0, images=10, p=1.0, odds_ratio=None)


def test_scores_by_a_column_of_the_predictions(folder):
    toy("run", n=2)
    ok("score", "run", "--by", "label", "--out", "out")
    assert [(row["group"], row["answers"]) for row in table("out/scores.csv")] == [
        (g, a) for g in ("hooded warbler", "ovenbird", "all") for a in ("one answer", "best of 2")
    ]
    assert (
        refused("score", "run", "--by", "answer")
        == "run: the column 'answer' differs between the answers to one image; use one of dataset, split, label, prompt"
    )
    assert refused("score", "run", "--by", "species").startswith(
        "run: no column 'species'; there are sample_id, dataset, split, label, prompt, rollout, "
    )


def test_published_predictions_that_cannot_be_scored(folder):
    toy("run")
    held = read_predictions("run/predictions.parquet")
    rows = list(held.rows())
    write_predictions(
        "unjudged.jsonl", Predictions({}, to_table([{**row, "category": None, "source": None} for row in rows]))
    )
    write_predictions("empty.parquet", Predictions({}, to_table([])))
    write_predictions("foreign.parquet", Predictions({}, to_table([{**row, "label": "pug"} for row in rows])))
    assert (
        refused("score", "unjudged.jsonl")
        == "unjudged.jsonl: no judge has seen all of these predictions; judge them with: speciarl evaluate "
        "--predictions unjudged.jsonl --out RUN"
    )
    assert refused("score", "empty.parquet") == "empty.parquet: there are no predictions in it; nothing can be scored"
    assert (
        refused("score", "foreign.parquet")
        == "foreign.parquet: the label 'pug' is not in birds; these are predictions of another data set, or their "
        "labels are spelled otherwise"
    )
    assert refused("score", "none.parquet") == "none.parquet: no such file; check the path"
    card = json.loads(Path("run/card.json").read_text())
    Path("run/card.json").write_text(json.dumps({**card, "finished": False}))
    assert (
        refused("score", "run")
        == "run: the run is not finished; start it again with the same command, it goes on where it stopped"
    )
    ok("evaluate", "--predictions", "unjudged.jsonl", "--out", "judged")
    assert read_card("judged")["scores"] == card["scores"]


def test_published_predictions_must_be_of_the_data_that_is_named(folder):
    from PIL import Image

    toy("run", count=2)
    Path("photos").mkdir()
    for i in range(2):
        Image.new("RGB", (8, 8)).save(f"photos/{i}.png")
    Path("photos/labels.csv").write_text("file,label,dataset\n0.png,hooded warbler,birds\n1.png,ovenbird,birds\n")
    ok("evaluate", "--predictions", "run/predictions.parquet", "--data", "photos", "--out", "same")
    Path("photos/labels.csv").write_text("file,label,dataset\n0.png,hooded warbler,birds\n1.png,hooded warbler,birds\n")
    assert (
        "sample '1.png' is not in this data set (its label is 'ovenbird', there 'hooded warbler'); these are "
        "predictions of another data set or split"
        in refused("evaluate", "--predictions", "run/predictions.parquet", "--data", "photos", "--out", "other")
    )
    assert not Path("other").exists()


def test_the_whole_text_is_the_answer_of_a_policy_without_tags(folder):
    toy("run")
    held = read_predictions("run/predictions.parquet")
    rows = [{**row, "text": row["label"], "answer": None} for row in held.rows()]
    write_predictions("spoken.jsonl", Predictions({}, to_table(rows)))
    assert "12 format failures" in ok("evaluate", "--predictions", "spoken.jsonl", "--out", "tagged")
    told = ok("evaluate", "--predictions", "spoken.jsonl", "--answer-tag", "none", "--out", "whole")
    assert (
        told.startswith("12 answers, 0 format failures, 0 undecided, 0 no verdict")
        and read_card("whole")["scores"]["S"] == 1
    )
    command = ("evaluate", "--predictions", "spoken.jsonl", "--out", "other", "--answer-tag")
    assert refused(*command, "<a>") == "the answer tag '<a>' is no word: give a name such as answer, or none"
    assert not Path("other").exists()


# The open-world metrics


def test_openworld_metrics_of_a_run(folder):
    toy("run")
    printed = ok("score", "run", "--openworld", "--encoder", "./none", "--out", "out")
    rows = {row["metric"]: row for row in table("out/openworld.csv")}
    assert "open-world protocol, first answers" in printed
    assert float(rows["text inclusion"]["released"]) > float(rows["text inclusion"]["ours"]), (
        "the label that is only considered counts in the released one"
    )
    assert [rows[name]["ours"] for name in ("Llama inclusion", "semantic similarity", "concept similarity")] == [
        "not run"
    ] * 3
    notes = Path("out/openworld.md").read_text()
    assert (
        "Not run: Llama inclusion (no judge server was given)." in notes
        and "the encoder ./none cannot be loaded" in notes
    )
    Path("v.csv").write_text("label,answer,category\na,b,wrong\n")
    assert (
        refused("score", "v.csv", "--openworld")
        == "v.csv: the open-world metrics need whole predictions; give the folder of a run, or published predictions "
        "(.parquet, .jsonl)"
    )


# A judge on a server


def test_evaluate_takes_the_options_of_judge(folder, judge_server):
    toy("run")
    source = [
        "evaluate",
        "--predictions",
        "run/predictions.parquet",
        "--judge",
        "llm",
        "--judge-url",
        judge_server.url,
        "--judge-model",
        "judge",
    ]
    ok(*source, "--judge-prompt", "decision_tree_single", "--confidence", "--out", "sure")
    rows = [row for row in table("sure/verdicts.csv") if row["source"] == "llm"]
    assert rows and all(
        row["reason"].startswith("confidence 0.") or row["reason"] == "confidence 1.000" for row in rows
    )
    ok(*source, "--votes", 3, "--out", "voted")
    cards = [read_card(name)["settings"]["judge"] for name in ("run", "sure", "voted")]
    assert len(set(cards)) == 3, "prompt and votes are part of what the judge is"
    message = refused("evaluate", "--predictions", "run/predictions.parquet", "--judge", "llm", "--out", "x")
    assert (
        message == "a language model as judge needs its server and its name: --judge-url http://localhost:8000/v1 "
        "--judge-model NAME"
    )
    assert (
        "unknown judge prompt 'rude'" in call(*source, "--judge-prompt", "rude", "--out", "x").stderr
        and not Path("x").exists()
    )


def test_judge_notes_how_sure_it_was(folder, judge_server):
    Path("pairs.csv").write_text(
        "dataset,label,answer\noxford_pets,samoyed,strange beast\noxford_pets,samoyed,samoyed\n"
    )
    ok(
        "judge",
        "pairs.csv",
        "--judge",
        "llm",
        "--base-url",
        judge_server.url,
        "--model",
        "judge",
        "--confidence",
        "--out",
        "v.csv",
    )
    assert all(row["reason"].startswith("confidence ") for row in table("v.csv"))
    ok("judge", "pairs.csv", "--judge", "llm", "--base-url", judge_server.url, "--model", "judge", "--out", "plain.csv")
    assert [row["category"] for row in table("plain.csv")] == [row["category"] for row in table("v.csv")] and {
        row["reason"] for row in table("plain.csv")
    } == {""}


# Many pairs


def test_many_pairs_are_judged_side_by_side_with_the_same_verdicts(monkeypatch):
    judge = TreeJudge(load_trees(["birds"]))
    keys = [
        (label, f"{word} {i}", "birds")
        for i in range(30)
        for label in ("ovenbird", "hooded warbler")
        for word in ("ovenbird", "bird", "quux")
    ]
    alone = verdict.side_by_side(judge, keys, workers=1)
    monkeypatch.setattr(verdict, "FEW", 50)
    assert verdict.side_by_side(TreeJudge(load_trees(["birds"])), keys, workers=3) == alone and list(alone) == keys


def test_a_process_that_dies_while_judging_is_one_line(monkeypatch):
    import os

    class Dying:
        trees, home = {}, os.getpid()

        def __call__(self, pairs, datasets):
            if os.getpid() != self.home:
                os._exit(9)
            return [None] * len(pairs)

    monkeypatch.setattr(verdict, "FEW", 1)
    with pytest.raises(
        Exception, match=r"^a process that judged died \(out of memory\?\); judge a smaller table, or free some memory$"
    ):
        verdict.side_by_side(Dying(), [("a", str(i), None) for i in range(4)], workers=2)
