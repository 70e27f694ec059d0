"""Runs: killed at any moment nothing is lost, two in one folder are refused, failed verdicts are tried again, and
only what can be compared is."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from speciarl.core.scale import Category, UserError
from speciarl.data.fieldguide import plates
from speciarl.data.samples import Sample
from speciarl.data.trees import load_trees
from speciarl.judges.tree import TreeJudge
from speciarl.judges.verdict import Verdict
from speciarl.metrics.matrix import Matrix, compare_runs, list_runs, load_matrix, matrix_runner, matrix_runs, run_matrix
from speciarl.metrics.runs import (
    FILES,
    evaluate,
    hold_run,
    judge_published,
    open_predictions,
    read_card,
    remove_leftovers,
    run_benchmark,
    run_settings,
)
from speciarl.policy.engines import Sampling, TransformersEngine
from speciarl.policy.model import load_policy
from speciarl.policy.predictions import Predictions, codes_of, read_predictions, to_table, write_predictions


@pytest.fixture(scope="module")
def engine():
    torch.set_num_threads(1)
    return TransformersEngine(load_policy("fieldguide-base", device="cpu"), batch=16)


@pytest.fixture(scope="module")
def judge():
    return TreeJudge(load_trees())


def bytes_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}


def unfinished(run):
    begun = {name: value for name, value in read_card(run).items() if name in ("settings", "answered_by")}
    (run / "card.json").write_text(json.dumps({**begun, "finished": False}))


SHORT = Sampling(2, max_tokens=16)


def samples_of(n=6, label="ovenbird", dataset="birds"):
    return [Sample(f"{i}.png", Path(f"{i}.png"), label, dataset) for i in range(n)]


def teller(answer, asked=None):
    "What stands for an engine: `answer(i)` for the i-th sample, appended line by line; resumes."

    def ask(samples, path):
        held = path.read_text().splitlines() if path.exists() else []
        with open(path, "a") as file:
            for i, sample in list(enumerate(samples))[len(held) :]:
                if asked is not None:
                    asked.append(sample.id)
                text = answer(i)
                file.write(
                    json.dumps(
                        dict(
                            sample_id=sample.id,
                            dataset=sample.dataset,
                            split=sample.split,
                            label=sample.label,
                            prompt="general",
                            rollout=0,
                            text=text or "",
                            answer=text,
                        )
                    )
                    + "\n"
                )

    return ask


def toy(out, judge, answer=lambda i: "bird", samples=None, name="toy", **changes):
    samples = samples or samples_of()
    return run_benchmark(
        out, samples, teller(answer), judge, run_settings(name, samples, "general", 1, 0, judge.identity) | changes
    )


# With a real policy


def test_a_run_holds_what_it_says_and_resumes(engine, judge, tmp_path):
    run, samples = tmp_path / "run", plates("birds", "test", 12)
    card = evaluate(engine, samples, run, judge, how=SHORT)
    assert sorted(p.name for p in run.iterdir() if p.name != ".lock") == sorted(FILES)
    with open(run / "verdicts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and {r["sample_id"] for r in rows} == {s.id for s in samples}
    assert card == read_card(run) and card["finished"] is True and card["settings"]["policy"] == "fieldguide-base"
    published = read_predictions(run / "predictions.parquet")
    assert [r["category"] or "" for r in published.rows()] == [r["category"] for r in rows] and codes_of(
        published
    ).codes.shape == (12, 2)
    held = bytes_of(run)
    for cut in (0, 900, len(held["predictions.jsonl"]) - 5):
        (run / "verdicts.csv").unlink()
        (run / "predictions.parquet").unlink()
        unfinished(run)
        (run / "predictions.jsonl").write_bytes(held["predictions.jsonl"][:cut])
        (run / "verdicts.jsonl").write_bytes(held["verdicts.jsonl"][:cut])
        evaluate(engine, samples, run, judge, how=SHORT)
        assert bytes_of(run) == held
    for name, change in {
        "prompt": dict(prompt="specific"),
        "n": dict(how=Sampling(4, max_tokens=16)),
        "seed": dict(how=Sampling(2, seed=5, max_tokens=16)),
    }.items():
        with pytest.raises(UserError, match=rf"run holds another run \({name} is .*\); choose another --out$"):
            evaluate(engine, samples, run, judge, **dict(how=SHORT) | change)


def test_a_broken_picture_is_recorded_left_out_and_counted(engine, judge, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    samples = plates("birds", "test", 3)
    samples[1] = Sample("bad.png", tmp_path / "bad.png", "ovenbird", "birds")
    card = evaluate(engine, samples, tmp_path / "run", judge, how=Sampling(max_tokens=16))
    assert card["counts"]["answers"] == 2 and card["counts"]["unreadable_images"] == 1
    with open(tmp_path / "run" / "samples.csv", newline="") as file:
        faults = [row["fault"] for row in csv.DictReader(file)]
    assert faults[0] == faults[2] == "" and "bad.png: the image is corrupt" in faults[1]
    with pytest.raises(
        UserError, match=r"^not one of the 1 images could be asked about \(the first: .*bad.png: the image is corrupt"
    ):
        evaluate(engine, samples[1:2], tmp_path / "other", judge)


def test_samples_with_and_without_a_data_set(engine, judge, tmp_path):
    "Labels files may name a data set on some rows only; sorting None among names once raised."
    samples = plates("birds", "test", 2)
    mixed = [samples[0], Sample(samples[1].id, samples[1].image, samples[1].label, None, "test")]
    assert evaluate(engine, mixed, tmp_path / "run", judge, how=Sampling(max_tokens=16))["counts"]["answers"] == 2


# Kills and locks

CHILD = """
import json, sys, time
from pathlib import Path
from speciarl.data.samples import Sample
from speciarl.metrics.runs import run_benchmark, run_settings
from speciarl.core.scale import Category
from speciarl.judges.verdict import Verdict

class Slow:
    identity = "slow"
    def __call__(self, pairs, datasets=None, done=None):
        verdicts = [Verdict(Category.GENERIC, "slow")] * len(pairs)
        for i, verdict in enumerate(verdicts):
            time.sleep(pause)
            done([i], [verdict])
        return verdicts

def ask(samples, path):
    held = path.read_bytes() if path.exists() else b""
    whole = held[:held.rfind(b"\\n") + 1]
    path.write_bytes(whole)
    with open(path, "a") as file:
        for i, sample in list(enumerate(samples))[whole.count(b"\\n"):]:
            time.sleep(pause)
            row = dict(sample_id=sample.id, dataset=None, split="test", label="x", prompt="general", rollout=0)
            file.write(json.dumps(row | dict(text="", answer=f"a{i}")) + "\\n")
            file.flush()

out, pause = sys.argv[1], float(sys.argv[2])
samples = [Sample(f"{i}.png", Path("x"), "x") for i in range(40)]
print("ready", flush=True)
run_benchmark(out, samples, ask, Slow(), run_settings("p", samples, "general", 1, 0, "slow"))
print("done", flush=True)
"""


def child(out, pause):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(out), str(pause)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_kill_9_at_any_moment_loses_nothing(tmp_path):
    whole = child(tmp_path / "whole", 0)
    assert whole.communicate()[0].endswith("done\n")
    run, lengths = tmp_path / "run", []
    for delay in (0.05, 0.3, 0.6, 0.5, 0.4):
        process = child(run, 0.02)
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        lengths.append(
            sum(
                (run / name).read_bytes().count(b"\n")
                for name in ("predictions.jsonl", "verdicts.jsonl")
                if (run / name).exists()
            )
        )
    assert lengths == sorted(lengths) and lengths[-1] > 0, "each start goes on where the last one was killed"
    (run / ".predictions.parquet.abc123").write_bytes(b"half")
    process = child(run, 0)
    assert process.communicate()[0].endswith("done\n")
    assert bytes_of(run) == bytes_of(tmp_path / "whole"), "and the end is that of an uninterrupted run"


def test_two_processes_in_one_folder(tmp_path):
    first = child(tmp_path / "run", 0.05)
    first.stdout.readline()
    while not (tmp_path / "run" / "predictions.jsonl").exists():
        time.sleep(0.01)
    with pytest.raises(
        UserError, match="run: another process is at work on this run; wait for it, or choose another --out$"
    ):
        toy(tmp_path / "run", TreeJudge(load_trees(["birds"])))
    first.kill()
    first.communicate()
    second = child(tmp_path / "run", 0)
    assert second.communicate()[0].endswith("done\n"), "the lock went with its holder"


def test_a_refused_folder_is_left_as_it_was(judge, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="mine exists and holds no run of speciarl; choose another --out$"):
        toy(tmp_path / "mine", judge)
    assert os.listdir(tmp_path / "mine") == ["thesis.tex"]
    with pytest.raises(UserError, match="thesis.tex is a file; choose another --out$"):
        toy(tmp_path / "mine" / "thesis.tex", judge)
    with pytest.raises(UserError, match="^cannot write /proc/run: .*; choose a folder you may write to$"):
        toy("/proc/run", judge)
    (tmp_path / "empty").mkdir()
    assert toy(tmp_path / "empty", judge)["finished"]


def test_a_lock_without_a_run_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), hold_run(tmp_path / "new"):
        raise KeyError
    assert not (tmp_path / "new").exists()


def test_sweeping_takes_only_our_own_leftovers(tmp_path):
    left = (".card.json.x1y2", ".verdicts.csv.q", ".scores.pdf.quwvghza")
    for name in (*left, ".gitignore", ".DS_Store", ".scores.pdf", "card.json"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".DS_Store", ".gitignore", ".scores.pdf", "card.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"settings": 3}', "\x00"])
def test_a_damaged_card(judge, tmp_path, text):
    toy(tmp_path / "run", judge)
    (tmp_path / "run" / "card.json").write_text(text)
    with pytest.raises(UserError, match="card.json is damaged; put it back, or choose another --out$"):
        toy(tmp_path / "run", judge)
    assert list_runs(tmp_path) == []


def test_other_samples_are_another_run(judge, tmp_path):
    toy(tmp_path / "run", judge)
    for samples in (samples_of()[::-1], samples_of(5)):
        with pytest.raises(UserError, match="holds another run"):
            toy(tmp_path / "run", judge, samples=samples)


# The judge


class Failing:
    "Fails on every answer in `down`, and counts what it is asked."

    identity = "failing"

    def __init__(self, down=()):
        self.down, self.asked = set(down), []

    def __call__(self, pairs, datasets=None, done=None):
        self.asked += [answer for _, answer in pairs]
        verdicts = [
            Verdict(None, "llm", "the server did not answer")
            if answer in self.down
            else Verdict(Category.GENERIC, "llm")
            for _, answer in pairs
        ]
        done(range(len(pairs)), verdicts)
        return verdicts


def test_failed_verdicts_are_counted_and_tried_again(tmp_path):
    judge, answers = Failing({"b", "c"}), "abacad"
    card = toy(tmp_path / "run", judge, lambda i: answers[i])
    assert judge.asked == ["a", "b", "c", "d"] and card["counts"]["no_verdict"] == 2 and card["finished"]
    judge.asked, judge.down = [], {"c"}
    assert toy(tmp_path / "run", judge, lambda i: answers[i])["counts"]["no_verdict"] == 1 and judge.asked == ["b", "c"]
    judge.asked, judge.down = [], set()
    assert toy(tmp_path / "run", judge, lambda i: answers[i])["counts"]["no_verdict"] == 0 and judge.asked == ["c"]
    whole = toy(tmp_path / "whole", Failing(), lambda i: answers[i])
    assert whole == read_card(tmp_path / "run") and bytes_of(tmp_path / "run") == bytes_of(tmp_path / "whole")


def test_a_judge_that_goes_away_keeps_what_it_said(tmp_path):
    class Gone(Failing):
        def __call__(self, pairs, datasets=None, done=None):
            done([0, 2], [Verdict(Category.GENERIC, "llm"), Verdict(Category.WRONG, "llm")])
            raise UserError("the judge is gone; start its server and run again")

    with pytest.raises(UserError, match="the judge is gone"):
        toy(tmp_path / "run", Gone(), lambda i: "abcdef"[i])
    assert not read_card(tmp_path / "run")["finished"]
    judge = Failing()
    toy(tmp_path / "run", judge, lambda i: "abcdef"[i])
    assert judge.asked == ["b", "d", "e", "f"]


def test_no_verdict_at_all_is_no_score(tmp_path):
    card = toy(tmp_path / "run", Failing({"bird"}))
    assert card["counts"]["no_verdict"] == 6 and card["scores"]["S"] is None
    assert codes_of(open_predictions(tmp_path / "run")).codes.tolist() == [[-1]] * 6


# Published predictions


def test_published_predictions_are_judged_again(judge, tmp_path):
    toy(tmp_path / "run", judge, lambda i: ["ovenbird", "bird", None][i % 3])
    source = tmp_path / "run" / "predictions.parquet"
    card = judge_published(source, tmp_path / "again", judge, samples_of())
    assert card["scores"] == read_card(tmp_path / "run")["scores"]
    assert (tmp_path / "again" / "verdicts.csv").read_bytes() == (tmp_path / "run" / "verdicts.csv").read_bytes()
    assert compare_runs([source, tmp_path / "again"]).tests[0]["value"] == 0
    with pytest.raises(UserError, match="these are predictions of another data set or split$"):
        judge_published(source, tmp_path / "other", judge, samples_of(label="pug"))
    with pytest.raises(UserError, match=r"holds another run \(judge is "):
        judge_published(source, tmp_path / "again", TreeJudge(load_trees(), strict=True))
    assert not (tmp_path / "other").exists()


# Comparing


def test_what_cannot_be_compared(judge, tmp_path):
    toy(tmp_path / "a", judge)
    toy(tmp_path / "b", Failing(), lambda i: "animal")
    toy(tmp_path / "c", judge, samples=samples_of(label="hooded warbler"))
    toy(tmp_path / "d", judge, samples=samples_of(4))
    toy(tmp_path / "e", judge, samples=samples_of(dataset=None))
    for other, message in {
        "a": "a run is named twice; compare different runs",
        "b": "a and b were judged by different judges, so their scores cannot be compared; judge one of them again",
        "c": "a and c have different labels for image '0.png': these are predictions of another data set or split",
        "d": "a and d are not over the same images (6 and 4, 4 in all runs); use the same data, or compare the "
        "shared ones with --shared",
        "e": "a and e have no image in common: these are predictions of another data set or split",
        "f": f"cannot read {tmp_path / 'f.parquet'}: No such file or directory; give the path of published predictions",
    }.items():
        with pytest.raises(UserError) as error:
            compare_runs([tmp_path / "a", tmp_path / (other if other != "f" else "f.parquet")])
        assert str(error.value) == message
    shared = compare_runs([tmp_path / "a", tmp_path / "d"], shared=True)
    assert shared.images == 4 and [row["images"] for row in shared.scores] == [4, 4]
    with pytest.raises(UserError, match="^give at least two runs to compare$"):
        compare_runs([tmp_path / "a"])


def test_images_are_matched_whatever_their_order(judge, tmp_path):
    toy(tmp_path / "a", judge, lambda i: "ovenbird" if i < 3 else "bird")
    samples = samples_of()[::-1]
    toy(tmp_path / "b", judge, lambda i: "ovenbird" if i >= 3 else "bird", samples)
    compared = compare_runs([tmp_path / "a", tmp_path / "b"])
    assert all(row["value"] == 0 and row["low"] == row["high"] == 0 for row in compared.tests)
    assert compared.mcnemar[0]["first_only"] == compared.mcnemar[0]["second_only"] == 0


def test_a_comparison_shows_itself_with_the_names_of_runs_as_text(judge, tmp_path):
    names = ["<b>a", "<b>b"]
    for name in names:
        toy(tmp_path / name, judge, lambda i: "ovenbird")
    html = compare_runs([tmp_path / name for name in names])._repr_html_()
    assert html.count("<table>") == 2 and "<b>" not in html and "<td>&lt;b&gt;a</td>" in html
    assert "<td>correctness</td><td>+0.000 [+0.000, +0.000]</td>" in html


def test_best_of_n_is_compared_where_all_runs_have_the_same_n(engine, judge, tmp_path):
    samples = plates("birds", "test", 6)
    for name, how in {
        "two": SHORT,
        "again": Sampling(2, seed=1, max_tokens=16),
        "one": Sampling(max_tokens=16),
    }.items():
        evaluate(engine, samples, tmp_path / name, judge, how=how)
    kinds = lambda *names: {
        row["answers"] for row in compare_runs([tmp_path / name for name in names], n_boot=50).tests
    }
    assert kinds("two", "again") == {"one answer", "best of 2"} and kinds("two", "one") == {"one answer"}
    assert compare_runs([tmp_path / "two", tmp_path / "one"], n_boot=50).mcnemar == []


# Matrices


def test_a_matrix_runs_and_goes_on(judge, tmp_path):
    matrix = Matrix(models=["fieldguide-base"], data=["birds", "pets"], prompts=["general"], limit=3)
    cards = run_matrix(matrix, tmp_path, matrix_runner(matrix, judge), lambda line: None)
    assert [card["counts"]["answers"] for card in cards.values()] == [3, 3] and len(list_runs(tmp_path)) == 2
    assert run_matrix(matrix, tmp_path, matrix_runner(matrix, judge), lambda line: None) == cards


def test_a_matrix_is_every_combination_once(tmp_path):
    (tmp_path / "m.yaml").write_text(
        "models: [a, {model: b, adapter: c/d, engine: vllm}]\ndata: [photos, {data: cub200, folder: /data, split: "
        "train}]\nprompts: [general, specific]\nn: [1, 64]\nseed: 3\n"
    )
    matrix = load_matrix(tmp_path / "m.yaml")
    names = [run.name for run in matrix_runs(matrix)]
    assert (
        len(names) == len(set(names)) == 16
        and names[0] == "a__photos__general__n1"
        and names[-1] == "b+c-d+vllm__cub200+train__specific__n64"
    )
    assert [run.model.model for run in matrix_runs(matrix)] == ["a"] * 8 + ["b"] * 8, "each model is loaded once"


@pytest.mark.parametrize("model", ["../../etc", "/", "a/../b", ".hidden", "-rf", "ünï/ködé", "a b"])
def test_names_of_folders_stay_inside(model):
    name = matrix_runs(Matrix(models=[model], data=["x"]))[0].name
    assert "/" not in name and not name.startswith((".", "-")) and Path("root", name).parent == Path("root")


def test_a_failing_run_does_not_stop_a_matrix(tmp_path):
    ran, said = [], []

    def run_one(run, out):
        ran.append(out.name)
        if run.model.model == "b":
            raise UserError("b: no such policy")
        return {"finished": True}

    with pytest.raises(
        UserError,
        match=r"^1 of 3 runs failed \(b__x__general__n1: b: no such policy\); mend it and start the matrix again, "
        r"finished runs are kept$",
    ):
        run_matrix(Matrix(models=["a", "b", "c"], data=["x"]), tmp_path, run_one, said.append)
    assert len(ran) == 3 and said[0] == "[1/3] a__x__general__n1" and "[2/3] failed: b: no such policy" in said


class Speaker:
    "An engine whose policy knows no tags."

    together, batch, limit = False, None, None

    def ask(self, samples, prompt, how):
        for place, sample in enumerate(samples):
            yield place, [f"<think> or is it a pug? </think>\n{sample.label}" for _ in range(how.n)]

    def describe(self):
        return {"model": "speaker"}

    def agreed(self):
        return {}

    def identity(self):
        return {}


def test_a_policy_that_writes_no_tags_can_be_read_whole(tmp_path, judge):
    samples = [Sample(f"{i}.png", f"{i}.png", label, "birds") for i, label in enumerate(["ovenbird", "hooded warbler"])]
    tagged = evaluate(Speaker(), samples, tmp_path / "tagged", judge)
    assert tagged["counts"]["format_failures"] == 2 and tagged["settings"]["tag"] == "answer"
    whole = evaluate(Speaker(), samples, tmp_path / "whole", judge, answer_tag="none")
    assert whole["counts"]["format_failures"] == 0 and whole["scores"]["S"] == 1 and whole["settings"]["tag"] is None
    assert [row["answer"] for row in open_predictions(tmp_path / "whole").rows()] == ["ovenbird", "hooded warbler"]
    with pytest.raises(UserError, match=r"another run \(tag is None, not 'answer'\)"):
        evaluate(Speaker(), samples, tmp_path / "whole", judge)
    with pytest.raises(UserError, match="^the answer tag 'a b' is no word: give a name such as answer, or none$"):
        evaluate(Speaker(), samples, tmp_path / "other", judge, answer_tag="a b")
    again = judge_published(
        tmp_path / "tagged/predictions.parquet", tmp_path / "again", judge, samples, answer_tag="none"
    )
    assert again["scores"] == whole["scores"] and again["settings"]["answer_tag"] == "none"
    assert not (tmp_path / "other").exists()


def test_texts_that_are_not_published_cannot_be_read_again(tmp_path, judge):
    rows = [dict(sample_id="a", dataset="birds", split="test", label="ovenbird", prompt="x", rollout=0, answer="bird")]
    write_predictions(tmp_path / "p.jsonl", Predictions({}, to_table(rows)))
    with pytest.raises(UserError, match="p.jsonl: row 1: no text is published in which an answer could be found$"):
        judge_published(tmp_path / "p.jsonl", tmp_path / "run", judge, answer_tag="none")
    assert not (tmp_path / "run").exists()
