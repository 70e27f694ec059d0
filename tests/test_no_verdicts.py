"A judge that gives no verdicts: found out before anything is paid for, or stopped early, with what was judged kept."

import csv
import json
from pathlib import Path

import pytest
import refusal
from judge_server import THOUGHT, judge_server, judge_server_process, rule  # noqa: F401 - fixtures
from typer.testing import CliRunner

from speciarl.cli.app import app
from speciarl.core.scale import Category
from speciarl.judges.choose import JudgeSpec, StoredJudge, make_judge
from speciarl.judges.llm import LLMJudge
from speciarl.judges.prompt import load_judge_prompt
from speciarl.judges.store import open_store
from speciarl.judges.verdict import FAILED, Missing, TooManyMissing, Verdict

PAIRS = [("samoyed", f"answer {i}") for i in range(200)]


@pytest.fixture
def make(judge_server, short_pauses):
    def made(prompt="base_single", **options):
        plain = load_judge_prompt(prompt).model_copy(update={"normalise": "none"})  # the server reads capitals
        return LLMJudge("judge", judge_server.url, plain, **{"timeout": 10.0, "retries": 1, **options})

    return made


def truth(pairs) -> list[Category]:
    return [Category.from_wire(rule(*pair)) for pair in pairs]


# --- models that think ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["base_single", "base_batched"])
@pytest.mark.parametrize("where", ["reasoning_content", "reasoning", "text"])
def test_thinking_is_switched_off_where_it_can_be(make, judge_server, caplog, where, prompt):
    plain = make(prompt).identity
    judge_server.set(thinks=where)
    judge = make(prompt)
    assert [verdict.category for verdict in judge(PAIRS[:40])] == truth(PAIRS[:40])
    assert judge_server.stats()["last"]["chat_template_kwargs"] == {"enable_thinking": False}
    assert judge.description["thinking"] == "off" and judge.identity != plain
    [record] = [record for record in caplog.records if record.name == "speciarl.judges.llm"]
    assert record.getMessage() == (
        "the judge's model thinks before it answers; it is asked not to (chat_template_kwargs: enable_thinking false)"
    )


@pytest.mark.parametrize("where", ["reasoning_content", "reasoning", "text"])
@pytest.mark.parametrize("quiet", ["ignore", "refuse"])
def test_who_cannot_be_kept_from_thinking_gets_room_for_it(make, judge_server, caplog, where, quiet):
    judge_server.set(thinks=where, quiet=quiet)
    judge = make()
    assert [verdict.category for verdict in judge(PAIRS[:20])] == truth(PAIRS[:20])
    last = judge_server.stats()["last"]
    assert last["max_tokens"] == 2056 and "chat_template_kwargs" not in last
    assert judge.description["thinking"] == "in full" and judge.description["max_tokens"] == 2056
    assert "has room for 2,048 tokens of thought" in caplog.text


def test_a_model_that_does_not_think_is_sent_nothing_new(make, judge_server):
    judge = make()
    judge(PAIRS[:1])
    assert "chat_template_kwargs" not in judge_server.stats()["last"] and "thinking" not in judge.description
    assert judge_server.stats()["probes"] == 3


# --- three known pairs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["base_single", "base_batched"])
@pytest.mark.parametrize(
    "settings, what, came",
    [
        ({"known": "The answer is right, I think.", "constrain": "ignore"}, "gives no verdict on any of", "'The an"),
        ({"known": "", "constrain": "ignore"}, "gives no verdict on any of", "an empty text"),
        ({"known": "x" * 30, "constrain": "ignore"}, "gives no verdict on any of", f"{'x' * 30!r}; "),
        ({"known": "abstain"}, "judges none of three known pairs right", "the reply is "),
    ],
)
def test_who_has_none_of_three_known_pairs_right_is_no_judge(make, judge_server, settings, what, came, prompt):
    judge_server.set(**settings)
    said = refusal.message(make(prompt).probe)
    assert said.startswith(f"the judge judge {what}") and came in said and "\n" not in said
    assert "; take " in said and judge_server.stats()["pairs"] == {}


def test_a_model_whose_thoughts_never_end_is_told_so(make, judge_server):
    judge_server.set(thinks="reasoning_content", quiet="refuse", known="")
    said = refusal.message(make().probe)
    assert "an empty text, and beside it the thought " + repr(THOUGHT[:80]) in said
    assert said.endswith("switch thinking off where the server is started, or take a model that does not think")


# --- a share of missing verdicts --------------------------------------------------------------------------------------


def test_the_share_is_looked_at_after_fifty_answers():
    good, bad = Verdict(Category.GENERIC, "llm"), Verdict(None, "llm failed", "no answer in 60 s")
    missing = Missing(0.2)
    missing.add([good] * 40 + [bad] * 9)  # 49 answers
    missing.add([good])
    with pytest.raises(TooManyMissing, match=r"^11 of 52 answers got no verdict \(the last: no answer in 60 s\); mend"):
        missing.add([bad, bad])
    Missing(1).add([bad] * 100)
    placed = [Verdict(None, source) for source in ("undecided", "unknown label", "trees disagree", "not in the store")]
    Missing(0).add(placed * 20)  # nobody failed
    assert refusal.message(Missing, 1.5) == "max_missing is 1.5; it must be a share from 0 to 1"
    assert "max_missing is -1" in refusal.message(JudgeSpec, max_missing=-1)


@pytest.mark.parametrize("kind", ["llm", "cascade"])
def test_a_judge_that_dies_after_sixty_answers_stops_and_goes_on(judge_server, tmp_path, short_pauses, kind):
    spec = JudgeSpec(kind, model="judge", url=judge_server.url)
    judge_server.set(dies_after=60)
    with open_store(tmp_path / "v.sqlite") as store:
        judge = make_judge(spec, store)
        model = getattr(judge, "second", judge)
        model.judge.server = model.judge.server.__class__(judge_server.url, "judge", retries=0, concurrency=1)
        with pytest.raises(TooManyMissing, match=r"^\d+ of \d+ answers got no verdict \(the last: status 500: "):
            judge(PAIRS)
        assert store.count() == 60
        judge_server.set(dies_after=0)
        verdicts = make_judge(spec, store)(PAIRS)
        assert [verdict.category for verdict in verdicts] == truth(PAIRS)
        assert judge_server.stats()["calls"] == 1 + 140


def test_what_fails_for_good_below_the_share_does_not_stop_the_next_run(judge_server, tmp_path, short_pauses):
    "The few that fail again are a small share of what is asked for, though they are all that is asked."
    pairs = [("samoyed", f"answer {i}" + " fault:wrong_name" * (i % 8 == 0)) for i in range(640)]
    spec = JudgeSpec("llm", model="judge", url=judge_server.url)
    with open_store(tmp_path / "v.sqlite") as store:
        for _ in range(2):
            verdicts = make_judge(spec, store)(pairs)
            assert sum(verdict.category is None for verdict in verdicts) == 80


def test_a_replay_counts_nothing(tmp_path):
    with open_store(tmp_path / "v.sqlite") as store:
        replay = StoredJudge(None, store, identity="someone", max_missing=0.0)
        assert {verdict.source for verdict in replay(PAIRS)} == {"not in the store"}


# --- the commands -----------------------------------------------------------------------------------------------------


def rows(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def command(tmp_path, monkeypatch, judge_server, short_pauses):
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text("label,answer\n" + "".join(f"{label},{answer}\n" for label, answer in PAIRS))

    def run(*options, name="judge", url="--base-url", model="--model"):
        line = [*options, "--judge", "llm", url, judge_server.url, model, "judge"]
        return CliRunner().invoke(app, [name, *line], prog_name="speciarl")

    return run


def test_judge_stops_with_one_line_and_the_same_command_goes_on(command, judge_server):
    ask = ("pairs.csv", "--out", "out.csv")
    judge_server.set(fail={"wrong_name": 0.5})
    result = command(*ask)
    last = result.output.splitlines()[-1]
    assert result.exit_code == 1 and " answers got no verdict (the last: the model wrote 'probably specific'" in last
    assert last.startswith("error: ") and not Path("out.csv").exists()
    with open_store("out.sqlite") as store:
        kept = store.count()
    assert kept > 20
    judge_server.set(fail={})
    result = command(*ask)
    assert result.exit_code == 0 and all(row["category"] for row in rows("out.csv"))
    assert judge_server.stats()["calls"] == 1 + 200 - kept


def test_more_may_be_missing_where_one_says_so(command, judge_server):
    judge_server.set(fail={"wrong_name": 0.5})
    result = command("pairs.csv", "--out", "out.csv", "--max-missing", "0.9")
    assert result.exit_code == 0, result.output
    card = json.loads(Path("out.card.json").read_text())
    assert card["without_verdict"] == sum(not row["category"] for row in rows("out.csv")) > 60


def test_a_small_table_without_one_verdict_is_no_success(command, judge_server):
    Path("pairs.csv").write_text("label,answer\nsamoyed,dog\nsamoyed,spitz\n")
    judge_server.set(fail={"wrong_name": 1.0})
    result = command("pairs.csv", "--out", "out.csv")
    assert result.exit_code == 1 and {row["source"] for row in rows("out.csv")} <= set(FAILED)
    assert result.output.splitlines()[-1].startswith("error: no verdict on any answer of pairs.csv (the model wrote ")


def test_no_judge_no_table(command, judge_server):
    judge_server.set(known="", constrain="ignore")
    result = command("pairs.csv", "--out", "out.csv")
    assert (
        result.exit_code == 2
        and "gives no verdict on any of three known pairs: the reply is an empty text"
        in (result.output.splitlines()[-1])
    )
    assert [path.name for path in Path().iterdir()] == ["pairs.csv"]


def test_evaluate_stops_and_goes_on_with_what_was_answered(command, judge_server):
    line = ("--model", "fieldguide-base", "--data", "birds", "--limit", "60", "--n", "2", "--out", "run")
    options = {"name": "evaluate", "url": "--judge-url", "model": "--judge-model"}
    judge_server.set(fail={"wrong_name": 1.0})
    result = command(*line, **options)
    assert result.exit_code == 1 and " got " in result.output.splitlines()[-1], result.output
    assert "mend the judge and run again" in result.output
    card = Path("run", "card.json")
    assert not card.exists() or not json.loads(card.read_text()).get("finished")
    judge_server.set(fail={})
    result = command(*line, **options)
    assert result.exit_code == 0, result.output
    assert json.loads(Path("run", "card.json").read_text())["counts"]["no_verdict"] == 0


def test_a_short_run_without_one_verdict_is_no_success(command, judge_server):
    line = ("--model", "fieldguide-base", "--data", "birds", "--limit", "4", "--out", "run")
    options = {"name": "evaluate", "url": "--judge-url", "model": "--judge-model"}
    judge_server.set(fail={"wrong_name": 1.0})
    result = command(*line, **options)
    last = result.output.splitlines()[-1]
    assert result.exit_code == 1 and last.startswith(
        "error: no verdict on any of 4 answers (the last: the model wrote "
    )
    assert json.loads(Path("run", "card.json").read_text())["counts"]["no_verdict"] == 4
    assert command(*line, "--max-missing", "1", **options).exit_code == 0, "whoever says so gets a table of nothing"
    judge_server.set(fail={})
    assert command(*line, **options).exit_code == 0


def test_a_matrix_of_short_runs_without_one_verdict_is_no_success(tmp_path, monkeypatch, judge_server, short_pauses):
    monkeypatch.chdir(tmp_path)
    judge = f"judge: llm\njudge_model: judge\njudge_url: {judge_server.url}\n"
    Path("m.yaml").write_text(f"models: [fieldguide-base]\ndata: [birds]\nlimit: 4\n{judge}")
    judge_server.set(fail={"wrong_name": 1.0})
    result = CliRunner().invoke(app, ["evaluate", "--matrix", "m.yaml", "--out", "runs"], prog_name="speciarl")
    assert result.exit_code == 1 and "error: no verdict on any of 4 answers" in result.output.splitlines()[-1]
    result = CliRunner().invoke(
        app, ["evaluate", "--matrix", "m.yaml", "--out", "runs", "--max-pixels", "9999"], prog_name="speciarl"
    )
    assert result.exit_code == 2 and "go into the matrix file: max_pixels" in result.output


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            ["data.birds=48", "prompts_per_generation=48", "prompts_per_step=48", "siblings=4"],
            "answers got no verdict (the last: the model wrote ",
        ),
        (
            ["data.birds=4", "prompts_per_generation=4", "prompts_per_step=4", "rollouts=2"],
            "answers of the first generat",
        ),
        (["max_tokens=1"], "is in the asked form"),
    ],
)
def test_training_without_verdicts_is_a_run_that_ended_badly(tmp_path, monkeypatch, judge_server, changes, said):
    monkeypatch.chdir(tmp_path)
    judge_server.set(fail={"wrong_name": 1.0})
    small = ["steps=2", "siblings=2", "data.birds=8", "prompts_per_generation=8", "prompts_per_step=8", "rollouts=8"]
    judge = ["micro_batch=8", "judge=llm", "judge_model=judge", f"judge_url={judge_server.url}"]
    options = [word for change in [*small, *judge, *changes] for word in ("--set", change)]
    result = CliRunner().invoke(app, ["train", "smoke/speciarl", *options, "--out", "run"], prog_name="speciarl")
    last = result.output.splitlines()[-1]
    assert result.exit_code == 1 and last.startswith("error: stopped before the first step: ") and said in last


def test_processes_agree_on_how_a_run_ended():
    from speciarl.core.work import in_ranks, together

    def work(rank, gather):
        def judge():
            if rank == 1:
                raise TooManyMissing("60 of 60 answers got no verdict")

        try:
            together(judge, gather)
        except Exception as error:
            return str(error), error.exit_code

    assert in_ranks(2, work) == [("process 1 of 2: 60 of 60 answers got no verdict", 1)] * 2
