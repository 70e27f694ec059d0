"A run judged again in its folder: new verdicts, scores and card, or everything as it was."

import json

import pytest
from command_line import call, ok, refused
from judge_server import judge_server, judge_server_process, rule  # noqa: F401 - fixtures
from refusal import message

from speciarl.core.files import append_jsonl, read_csv
from speciarl.core.scale import UserError
from speciarl.data.samples import Sample
from speciarl.data.trees import load_tree, load_trees
from speciarl.judges.tree import TreeJudge
from speciarl.metrics.again import judge_again
from speciarl.metrics.runs import open_codes, run_benchmark, run_settings
from speciarl.policy.predict import prediction

TREE = "@dataset mine\n@title Mine\n@domain dog\ndog\n  spitz\n    * samoyed\n  terrier\n    * westie\n"
SAID = ["samoyed", "dog", "strangeling 1", "strangeling 2", "cat"]


def make(folder, dataset="oxford_pets", judge=None):
    samples = [Sample(f"{i}.png", folder / f"{i}.png", "samoyed", dataset) for i in range(len(SAID))]

    def ask(asked, path):
        if not path.exists():
            rows = [prediction(one, "general", 0, f"<answer>{said}</answer>") for one, said in zip(asked, SAID)]
            append_jsonl(path, rows, json.dumps)

    judge = judge or TreeJudge()
    settings = run_settings("toy", samples, "general", 1, 0, judge.identity)
    again = lambda: run_benchmark(folder / "run", samples, ask, judge, settings)
    again()
    ok("score", folder / "run", "--out", folder / "run", "--force")
    return folder / "run", again


def held(run):
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def categories(run):
    return [row["category"] for row in read_csv(run / "verdicts.csv", ("category",))[0]]


def test_another_judge_judges_in_place(tmp_path, judge_server):
    run, again = make(tmp_path)
    before, scores = held(run), (run / "scores.csv").read_text()
    assert "" in categories(run), "the trees leave these undecided"
    server = ("--judge", "llm", "--base-url", judge_server.url, "--model", "judge")
    told = ok("judge", run, *server)
    assert "5 answers judged again" in told
    assert categories(run) == [rule("samoyed", said) for said in SAID]
    card = json.loads((run / "card.json").read_text())
    assert (card["judge"]["model"], card["judge"]["prompt"]) == ("judge", "claim_single")
    assert card["settings"]["judge"] == card["judge"]["identity"] and card["counts"]["undecided"] == 0
    assert card["versions"] == json.loads(before["card.json"])["versions"], "of what answered"
    assert (run / "scores.csv").read_text() != scores and open_codes(run).codes.min() >= 0
    assert (run / "predictions.jsonl").read_bytes() == before["predictions.jsonl"]
    assert not list(run.glob(".again-*"))
    asked = judge_server.stats()
    ok("judge", run, *server)
    assert (
        sum(v for v in judge_server.stats().values() if isinstance(v, int))
        - sum(v for v in asked.values() if isinstance(v, int))
        <= 4
    ), "only the probe: verdicts are kept in run.sqlite"
    assert "judge it again with speciarl judge" in message(again)
    ok("judge", run)
    assert categories(run) == [row.split(",")[-3] for row in before["verdicts.csv"].decode().splitlines()[1:]]
    again()  # with the first judge the run goes on as ever


@pytest.mark.parametrize("fails", ["raises", "owes everything", "is killed"])
def test_a_judge_that_fails_leaves_the_run_as_it_was(tmp_path, fails, monkeypatch):
    run, _ = make(tmp_path)
    before = held(run)

    class Bad:
        identity = "bad"

        def __call__(self, pairs, datasets=None, done=None):
            if fails == "raises":
                raise UserError("no server; start it")
            if fails == "is killed":
                raise KeyboardInterrupt
            from speciarl.judges.verdict import Verdict

            return [Verdict(None, "llm failed", "no server")] * len(pairs)

    with pytest.raises(KeyboardInterrupt if fails == "is killed" else UserError):
        judge_again(run, Bad())
    assert held(run) == before and not [path for path in run.iterdir() if path.is_dir()]


def test_a_server_that_is_not_there_changes_nothing(tmp_path):
    run, _ = make(tmp_path)
    before = held(run)
    done = call("judge", run, "--judge", "llm", "--base-url", "http://127.0.0.1:9/v1", "--model", "judge")
    assert done.exit_code == 2 and "no judge at" in done.stderr and held(run) == before


def test_a_run_that_names_no_data_set_takes_the_tree_that_is_given(tmp_path):
    run, _ = make(tmp_path, None)
    ok("judge", run, "--dataset", "oxford_pets", "--strict")
    assert categories(run) == ["specific", "generic", "wrong", "wrong", "wrong"]
    assert read_csv(run / "verdicts.csv", ("dataset",))[0][0]["dataset"] == ""


def test_a_tree_of_ones_own_is_given_again(tmp_path):
    path = tmp_path / "my.tree"
    path.write_text(TREE)
    run, _ = make(tmp_path, "mine", TreeJudge(load_trees() | {"mine": load_tree(path)}))
    told = refused("judge", run)
    assert told == f"{run}: no label tree is called 'mine', as its pictures say; give it with --tree FILE.tree"
    path.write_text(TREE.replace("samoyed", "samoyed | strangeling 1"))
    ok("judge", run, "--tree", path)
    assert categories(run)[2] == "specific"


def test_what_is_refused(tmp_path):
    run, _ = make(tmp_path)
    for options in (["--out", "x.csv"], ["--as-is"], ["--label-column", "truth"]):
        assert "a run is judged again in place" in refused("judge", run, *options)
    assert "no card.json, so this is no run" in refused("judge", tmp_path)
    (tmp_path / "pairs.csv").write_text("label,answer\npug,dog\n")
    assert refused("judge", tmp_path / "pairs.csv").endswith("pairs.csv go: --out VERDICTS.csv")
    card = json.loads((run / "card.json").read_text())
    (run / "card.json").write_text(json.dumps(card | {"finished": False}))
    assert "the run is not finished" in refused("judge", run)
