"The reward function TRL calls, and verl's: whole groups, counted failures."

import json
import logging
import random
import re
from types import SimpleNamespace

import pytest

from speciarl.core.files import read_jsonl, write_jsonl
from speciarl.core.scale import Category, UserError
from speciarl.judges.verdict import Verdict
from speciarl.training.reward import (
    SpecificityReward,
    completion_text,
    drop_from,
    gather_ranks,
    patiently,
    together,
    verl_reward,
)
from speciarl.training.rules import FORMAT_PENALTY, group_metrics, groups_by_key, groups_of, level_metrics

C = Category
LEVELS = {"s": C.SPECIFIC, "l": C.LESS_SPECIFIC, "g": C.GENERIC, "a": C.ABSTAIN, "m": C.MORE_SPECIFIC, "?": None}


def judge(pairs, datasets=None):
    "Knows an answer by its first letter: s specific, l less specific, g generic, a abstain, ? no verdict, else wrong."
    return [Verdict(LEVELS.get(answer[0], C.WRONG), "test") for _, answer in pairs]


def written(answers):
    return [f"<answer>{a}</answer>" if a is not None else "no tag" for a in answers]


def paid(answers, n=None, rule="dynamic", uid=None, **kwargs):
    return SpecificityReward(judge, rule, n or len(answers))(
        written(answers), ["y"] * len(answers), uid=uid or ["u"] * len(answers), **kwargs
    )


def called(answers, n=None, step=None, **settings):
    "The reward function after one call with these answers, the rewards, and the metrics."
    reward, logged = SpecificityReward(judge, num_generations=n or len(answers), **settings), {}
    values = reward(
        written(answers),
        label=["y"] * len(answers),
        uid=["u"] * len(answers),
        log_metric=logged.__setitem__,
        trainer_state=None if step is None else SimpleNamespace(global_step=step),
    )
    return reward, values, logged


# Groups


def test_duplicated_samples_stay_separate_groups():
    assert paid(["s", "g", "g", "x"], n=2) == [1, 0, 1, 0], "the second group is anchored on its own best"


def test_the_order_of_blocks_does_not_matter():
    one, two = ["s", "g", "x"], ["g", "x", "a"]
    uids = ["1"] * 3 + ["2"] * 3
    assert paid(one + two, 3, uid=uids) == paid(one) + paid(two)
    assert paid(two + one, 3, uid=uids) == paid(two) + paid(one)


@pytest.mark.parametrize(
    "uids, n, message",
    [
        (None, 2, "the batch has no column 'uid'"),
        (["a", "a", "b"], 2, "3 completions are not whole groups of 2"),
        (["a", "b", "b", "b"], 2, "completions 0 to 1 belong to 2 samples"),
        ([None, None], 2, "a sample has no uid"),
        (["a", ""], 2, "a sample has no uid"),
    ],
)
def test_groups_that_are_not_whole_are_refused(uids, n, message):
    with pytest.raises(UserError, match=message):
        groups_of(uids, n)


@pytest.mark.parametrize(
    "uids, message",
    [
        (None, "the batch has no column 'uid'"),
        (["a", None], "a sample has no uid"),
        (["a", "a", "b"], "the samples of the batch have from 1 to 2 rollouts that follow one another"),
        (
            ["a", "b", "a"],
            "the samples of the batch have 1 rollouts that follow one another: every sample needs as many",
        ),
    ],
)
def test_keys_that_make_no_groups_are_refused(uids, message):
    with pytest.raises(UserError, match=message):
        groups_by_key(uids)


def test_the_keys_say_how_many_rollouts_a_group_has():
    two, four = ["1"] * 2 + ["2"] * 2, ["1"] * 4 + ["2"] * 4
    assert paid(["s", "g", "g", "x"], n=4, uid=two) == [1, 0, 1, 0], "fewer than num_generations"
    assert paid(["s", "g", "x", "x", "g", "l", "g", "x"], n=3, uid=four) == [1, 0, 0, 0, 0, 1, 0, 0], "more"
    unnumbered = SpecificityReward(judge)
    assert unnumbered(written(["s", "g", "g", "x"]), ["y"] * 4, uid=two) == [1, 0, 1, 0]


class Trainer:
    "Calls a reward function as TRL's trainer does."

    num_generations, num_generations_eval = 4, 2

    def __init__(self, training):
        self.model, self.metrics = SimpleNamespace(training=training), {}

    def log_metric(self, name, value):
        self.metrics[name] = value

    def ask(self, reward, answers, uids, step=0):
        return reward(
            written(answers),
            ["y"] * len(answers),
            uid=uids,
            log_metric=self.log_metric,
            trainer_state=SimpleNamespace(global_step=step),
        )


def test_a_trainer_may_evaluate_with_groups_of_another_size(tmp_path):
    path = tmp_path / "r.jsonl"
    reward = SpecificityReward(judge, num_generations=8, check_first=True, log_rollouts=path)
    training, evaluating = Trainer(training=True), Trainer(training=False)
    assert evaluating.ask(reward, ["?", "?"], ["c", "c"]) == [None, None], "no generation that teaches"
    assert evaluating.ask(reward, ["s", "g", "g", "x"], ["a", "a", "b", "b"]) == [1, 0, 1, 0]
    assert evaluating.ask(reward, ["s", "g", "g", "x"], ["a", "a", "a", "a"]) == [1, 0, 1, 0], "the trainer's number"
    assert training.ask(reward, ["s", "g", "g", "x"], ["a", "a", "a", "a"]) == [1, 0, 0, 0]
    assert evaluating.metrics["anchor_generic"] == 0.5
    rows = list(read_jsonl(path))
    assert [row.get("evaluation", False) for row in rows] == [True] * 10 + [False] * 4
    Trainer.num_generations_eval = 1
    try:
        assert evaluating.ask(reward, ["s", "x"], ["a", "b"]) == [1, 0]
    finally:
        Trainer.num_generations_eval = 2


def test_a_resumed_run_keeps_the_evaluation_that_came_before_its_checkpoint(tmp_path):
    path, pair = tmp_path / "r.jsonl", ["u", "u"]
    killed, training, evaluating = SpecificityReward(judge, log_rollouts=path), Trainer(True), Trainer(False)
    training.num_generations = 2
    for step in (0, 1, 2):
        evaluating.ask(killed, ["g", "x"], pair, step)
        training.ask(killed, ["s", "g"], pair, step)
    whole = path.read_text()
    resumed = SpecificityReward(judge, log_rollouts=path)
    training.ask(resumed, ["s", "g"], pair, 2)
    assert path.read_text() == whole
    evaluated_first = SpecificityReward(judge, log_rollouts=path)
    evaluating.ask(evaluated_first, ["g", "x"], pair, 2)
    training.ask(evaluated_first, ["s", "g"], pair, 2)
    assert path.read_text() == whole


@pytest.mark.parametrize(
    "columns, message",
    [
        (
            {"label": ["y"] * 2},
            "the batch has no column 'uid': the training set needs label (the exact name) and uid (one value per "
            "sample)",
        ),
        (
            {"uid": ["u"] * 2},
            "the batch has no column 'label': the training set needs label (the exact name) and uid (one value per "
            "sample)",
        ),
        ({"uid": ["u"] * 2, "label": ["y"]}, "column 'label' has 1 entries for 2 completions: give one each"),
        (
            {"uid": [None] * 2, "label": ["y"] * 2},
            "a sample has no uid: give every row of the training set its own value in column 'uid'",
        ),
        (
            {"uid": ["u", "v"], "label": ["y"] * 2},
            "completions 0 to 1 belong to 2 samples: is num_generations=2 the trainer's?",
        ),
    ],
)
def test_batches_without_their_columns_are_refused(columns, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        SpecificityReward(judge, "dynamic", 2)(["a", "b"], **columns)


# What is paid


def test_a_missing_verdict_is_no_reward_and_no_anchor():
    assert paid(["?", "g", "x"]) == [None, 1, 0]


def test_broken_formats_pay_the_penalty_and_are_not_judged():
    seen = []

    def watching(pairs, datasets=None):
        seen.extend(pairs)
        return judge(pairs)

    texts = ["no tag", "<answer></answer>", "<answer> </answer>", "<answer>g</answer>"]
    rewards = SpecificityReward(watching, "dynamic", 4)(texts, ["y"] * 4, uid=["u"] * 4)
    assert rewards == [FORMAT_PENALTY] * 3 + [1] and seen == [("y", "g")], (
        "an empty tag is a format failure too, as in the release"
    )


def test_a_thought_can_be_required():
    texts = ["<answer>s</answer>", "<think>t</think><answer>g</answer>"]
    assert SpecificityReward(judge, "dynamic", 2)(texts, ["y"] * 2, uid=["u"] * 2) == [1, 0]
    assert SpecificityReward(judge, "dynamic", 2, think=True)(texts, ["y"] * 2, uid=["u"] * 2) == [-1, 1]


def test_more_specific_counts_like_specific():
    assert paid(["m", "s", "l"]) == [1, 1, 0]
    assert paid(["m", "s", "l"], rule="reward3") == [1, 1, 0]
    assert paid(["m", "s", "l"], rule="dynamic-single") == [1, 0, 0]


def test_the_rank_of_the_anchor():
    assert called(["s", "g", "g", "x"], anchor_rank=2)[1] == [1, 1, 1, 0]


def test_noise_is_seeded_and_differs_from_step_to_step():
    def noisy(step, seed=0):
        return called(["g"] * 12, n=4, noise=0.5, seed=seed, step=step)[1]

    assert (
        noisy(1) == noisy(1)
        and len({tuple(noisy(step)) for step in range(6)}) > 1
        and len({tuple(noisy(1, seed)) for seed in range(6)}) > 1
    )


def test_the_length_penalty_is_added_after_the_rule():
    reward = SpecificityReward(judge, "dynamic", 4, overlong=(16, 4))
    ids = [[0] * n for n in (16, 14, 12, 16)]
    assert reward(written(["g", "g", "x", "?"]), ["y"] * 4, uid=["u"] * 4, completion_ids=ids) == [0, 0.5, 0, None]
    assert reward.last_mask == [True, True, True, False] and reward.last_flat == [False] * 4
    reward(written(["g"] * 4), ["y"] * 4, uid=["u"] * 4, completion_ids=ids)
    assert reward.last_flat == [True] * 4, "flat before the penalty, as DAPO's dynamic sampling looks at it"


def test_what_leaves_the_loss():
    reward, values, _ = called(["s", "?", "?", "g", "x", "?", "g", "g", "?", "x", "x", None], n=3)
    assert values == [None, None, None, 1, 0, None, 1, 1, None, 0, 0, -1]
    assert reward.last_mask == [value is not None for value in values]
    assert reward.last_flat == [True] * 3 + [False] * 3 + [True] * 3 + [False] * 3


def test_the_tokens_are_read_by_a_tokenizer_if_there_is_one():
    tokenizer = SimpleNamespace(
        batch_decode=lambda ids, skip_special_tokens: (
            [f"<answer>{chr(i)}</answer>" for (i,) in ids] if skip_special_tokens else None
        )
    )
    reward = SpecificityReward(judge, "dynamic", 2, tokenizer=tokenizer)
    assert reward(["taken apart by TRL"] * 2, ["y"] * 2, uid=["u"] * 2, completion_ids=[[ord("s")], [ord("g")]]) == [
        1,
        0,
    ]
    with pytest.raises(UserError, match="no column 'completion_ids'"):
        reward(["a", "b"], ["y"] * 2, uid=["u"] * 2)


def test_data_sets_reach_the_judge_in_step_with_the_answers():
    seen = []

    def watching(pairs, datasets=None):
        seen.append(datasets)
        return judge(pairs)

    SpecificityReward(watching, "dynamic", 3)(
        ["<answer>s</answer>", "none", "<answer>g</answer>"],
        ["y"] * 3,
        uid=["u"] * 3,
        dataset=["birds", "food", "cars"],
    )
    assert seen == [["birds", "cars"]]


def test_completion_text_of_all_forms():
    assert (
        completion_text(
            [{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
        )
        == "ab"
    )


# What is seen


def test_metrics_add_up_and_count_what_failed():
    logged = called(["s", "?", None, "x"])[2]
    shares = {name: value for name, value in logged.items() if name.startswith("share_")}
    assert (
        logged["share_missing"]
        == logged["share_unformatted"]
        == logged["share_specific"]
        == logged["share_wrong"]
        == 0.25
    )
    assert sum(shares.values()) == pytest.approx(1) and set(shares) == set(level_metrics([C.WRONG], [True]))
    assert logged["mean_reward"] == 0 and logged["judge_seconds"] >= 0 and logged["anchor_specific"] == 1


def test_metrics_of_groups():
    logged = called(["s", "g", "x", "x", "?", "s", "l", "l", "a", "x", None, None], n=2)[2]
    assert {name: round(value * 6) for name, value in logged.items() if name.startswith(("groups_", "anchor_"))} == {
        "groups_flat": 3,
        "groups_masked": 1,
        "anchor_abstain": 2,
        "anchor_generic": 0,
        "anchor_less_specific": 1,
        "anchor_specific": 2,
    }
    assert logged["mean_reward"] == pytest.approx((1 + 0 + 0 + 0 + 1 + 1 + 1 + 0 - 1 - 1) / 10)
    assert (
        "mean_reward" not in group_metrics([[None]], [[None]])
        and group_metrics([[C.SPECIFIC, C.GENERIC]], [[1.0, 0.0]], 2)["anchor_generic"] == 1
    )


def test_rollouts_are_written_to_be_read(tmp_path):
    called(["s", "?", None, "g"], step=3, log_rollouts=tmp_path / "deep" / "rollouts.jsonl")
    rows = [
        json.loads(line) for line in (tmp_path / "deep" / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    common = {"step": 3, "uid": "u", "label": "y"}
    assert rows == [
        {**common, "answer": "s", "category": "specific", "source": "test", "reward": 1.0},
        {**common, "answer": "?", "category": None, "source": "test", "reward": None},
        {**common, "answer": None, "category": None, "source": "broken format", "reward": -1.0},
        {**common, "answer": "g", "category": "generic", "source": "test", "reward": 0.0},
    ]


def test_noise_shows_in_the_rollouts(tmp_path):
    called(["g"] * 40, step=0, noise=0.5, log_rollouts=tmp_path / "r.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert {row["category"] for row in rows} == {"generic"} and {row.get("noised") for row in rows} == {
        None,
        "abstain",
        "less specific",
    }


def test_a_resumed_run_continues_the_file_of_rollouts(tmp_path):
    path = tmp_path / "r.jsonl"
    whole = SpecificityReward(judge, "dynamic", 2, log_rollouts=path)

    def step(reward, number):
        reward(
            written(["s", "g"]), ["y"] * 2, uid=[f"u{number}"] * 2, trainer_state=SimpleNamespace(global_step=number)
        )

    for number in range(4):
        step(whole, number)
    expected = path.read_text()
    path.write_text(expected + '{"step": 4, "uid": "u')  # killed while writing
    resumed = SpecificityReward(judge, "dynamic", 2, log_rollouts=path)
    for number in (2, 3):
        step(resumed, number)
    assert path.read_text() == expected


def test_a_separator_of_unicode_in_an_answer_does_not_end_its_line(tmp_path):
    path = write_jsonl(tmp_path / "r.jsonl", [{"step": 0, "answer": "tern\u2028gull"}, {"step": 1, "answer": "tern"}])
    drop_from(path, 1)
    assert list(read_jsonl(path)) == [{"step": 0, "answer": "tern\u2028gull"}]


def test_rollouts_that_cannot_be_written_stop_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*r\.jsonl: .*; choose another place with log_rollouts"):
        called(["s", "g"], log_rollouts=tmp_path / "file" / "r.jsonl")


# Failures


def failing(times, error=None):
    "A judge that fails so many times, then judges."
    calls = []

    def attempt(pairs, datasets=None):
        calls.append(len(pairs))
        if len(calls) <= times:
            raise error or UserError("the judge at http://x does not answer: start it")
        return judge(pairs)

    attempt.calls = calls
    return attempt


def test_a_judge_that_comes_back_is_asked_again(caplog):
    flaky = failing(2, ConnectionRefusedError("port 8000"))
    with caplog.at_level(logging.WARNING):
        assert SpecificityReward(flaky, "dynamic", 2, retries=2, pause=0)(
            written(["s", "g"]), ["y"] * 2, uid=["u"] * 2
        ) == [1, 0]
    assert flaky.calls == [2, 2, 2]
    assert [r.getMessage() for r in caplog.records] == [
        f"the judge failed, asking again in 0 s, {n} left: ConnectionRefusedError: port 8000" for n in (2, 1)
    ]


def test_a_judge_that_stays_away_stops_the_run_with_one_line():
    with pytest.raises(UserError) as caught:
        SpecificityReward(failing(9), "dynamic", 2, retries=2, pause=0)(written(["s", "g"]), ["y"] * 2, uid=["u"] * 2)
    assert str(caught.value) == "the judge at http://x does not answer: start it (asked 3 times, 0 s apart)"


def test_a_mistake_in_a_judge_is_not_repeated():
    broken = failing(1, KeyError("label"))
    with pytest.raises(KeyError):
        patiently(lambda: broken([]), retries=5, pause=0)
    assert broken.calls == [0]


def test_a_judge_that_loses_verdicts_is_refused():
    with pytest.raises(UserError, match="the judge gave 1 verdicts for 2 answers: it must give one each, in order"):
        SpecificityReward(lambda pairs, datasets=None: judge(pairs)[1:], "dynamic", 2, retries=0)(
            written(["s", "g"]), ["y"] * 2, uid=["u"] * 2
        )


def test_too_many_missing_verdicts_stop_the_run():
    assert called(["?", "?", "?", "s"])[1] == [None] * 4
    assert called(["?", "s", "s", None], max_missing=0.25)[1] == [None, 1, 1, -1]
    with pytest.raises(UserError, match=r"^3 of 4 answers got no verdict \(the first: test\): look at the judge$"):
        called(["?", "?", "?", "s"], max_missing=0.5)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(num_generations=1), "num_generations is 1: a group needs at least 2 rollouts to be compared"),
        (
            dict(num_generations=2, anchor_rank=3),
            "num_generations is 2: a group needs at least 3 rollouts to be compared",
        ),
        (
            dict(rule="best"),
            "unknown reward rule 'best': use one of accuracy, dynamic, dynamic-single, priced, reward3, scala1, "
            "scala2, scala3",
        ),
        (
            dict(rule="reward3", anchor_rank=2),
            "the reward rule 'reward3' takes no anchor_rank: use dynamic, or leave anchor_rank at 1",
        ),
        (dict(noise=10), "noise is 10: give a share from 0 to 1, for example 0.1"),
        (dict(overlong=(16, 32)), "an overlong buffer of 32 does not fit a limit of 16 tokens: choose 1 to 16"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(UserError) as caught:
        SpecificityReward(judge, **settings)
    assert str(caught.value) == message


# Several processes (real ones: test_adapters_processes.py)


def test_one_process_needs_no_exchange():
    assert gather_ranks(5) == ([5], 0) and together(lambda: 5) == ([5], 0)
    with pytest.raises(ZeroDivisionError):
        together(lambda: 1 / 0)


def test_a_fault_elsewhere_stops_this_process_too():
    with pytest.raises(UserError, match="^process 1 of 2: the judge is down$"):
        together(lambda: 5, gather=lambda mine: ([mine, ("the judge is down", 2, None)], 0))


# verl

RANKS = {"more specific": 1, "specific": 1, "less specific": 2, "generic": 3, "abstain": 4, "wrong": 5}


def as_released(keys, outcomes):
    """The released scores in mode `all`, from their description: outcome is a category's name, "unparsed", or "error".

    Per key: -1 without a parsable answer, 0 where the judge failed; otherwise 1 for those of the best rank in the
    group, and 0 for the rest, or for all if the best is wrong.
    """
    best = {}
    for key, outcome in zip(keys, outcomes):
        if outcome in RANKS:
            best[key] = min(best.get(key, 99), RANKS[outcome])
    scores = []
    for key, outcome in zip(keys, outcomes):
        if outcome == "unparsed":
            scores.append(-1.0)
        elif outcome == "error" or best[key] == 5:
            scores.append(0.0)
        else:
            scores.append(1.0 if RANKS[outcome] == best[key] else 0.0)
    return scores


def verl_batch(rng, outcomes, samples=12, n=8):
    "A step of verl: samples x n rollouts in any order, each with an outcome."
    rollouts = [
        (source, i, rng.choice(outcomes)) for i in range(samples) for source in ("cub", "food") for _ in range(n // 2)
    ]
    rng.shuffle(rollouts)
    letters = {
        "unparsed": None,
        "error": "?",
        "wrong": "x",
        **{c.wire: letter for letter, c in LEVELS.items() if c is not None},
    }
    infos = [{"index_orig": i, "source_split": "train", "source_index": 100 + i} for _, i, _ in rollouts]
    return (
        (
            [source for source, _, _ in rollouts],
            written([letters[o] for _, _, o in rollouts]),
            ["y"] * len(rollouts),
            infos,
        ),
        [(s, i) for s, i, _ in rollouts],
        [o for *_, o in rollouts],
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "outcomes, settings",
    [
        ([*RANKS, "unparsed"], {}),
        (["wrong", "wrong", "generic", "unparsed"], {}),
        (["wrong", "abstain"], {}),
        ([*RANKS, "unparsed", "error"], {"missing": 0.0}),
        (["error", "wrong", "unparsed"], {"missing": 0.0}),
    ],
)
def test_verl_scores_are_those_of_the_release(seed, outcomes, settings):
    batch, keys, drawn = verl_batch(random.Random(seed), outcomes)
    score = verl_reward(judge, "dynamic", ("index_orig", "source_split", "source_index"), **settings)
    assert score(*batch) == as_released(keys, drawn)


def test_verl_and_trl_pay_alike():
    answers = [random.Random(1).choice("slgaxm") for _ in range(40)]
    there = verl_reward(judge, "dynamic", anchor_rank=2)(
        ["cub"] * 40, written(answers), ["y"] * 40, [{"uid": i // 4} for i in range(40)]
    )
    assert there == called(answers, n=4, anchor_rank=2)[1]


def test_verl_gets_a_neutral_number_where_there_is_no_verdict():
    def score(answers, **settings):
        return verl_reward(judge, **settings)(
            ["cub"] * len(answers), written(answers), ["y"] * len(answers), [{"uid": "u"}] * len(answers)
        )

    assert score(["s", "x", "?", "x"]) == [1, 0, pytest.approx(1 / 3), 0], "the mean of its group: advantage 0"
    assert score(["s", "?", "?", None]) == [0] * 4, "too few verdicts: no signal at all"
    assert score(["s", "?", "?", None], missing=0.0) == [1, 0, 0, -1] and score(["g"]) == [1], (
        "as released; validation has groups of one"
    )


def test_verl_keeps_data_sources_apart_and_names_them_for_the_judge():
    seen = []

    def watching(pairs, datasets=None):
        seen.append(datasets)
        return judge(pairs)

    score = verl_reward(watching, datasets={"data/cub.parquet": "cub200"})
    assert score(["data/cub.parquet", "other"], written(["s", "g"]), ["y"] * 2, [{"uid": 1}, {"uid": 1}], step=3) == [
        1,
        1,
    ] and seen == [["cub200", None]]


@pytest.mark.parametrize(
    "infos, message",
    [
        (
            None,
            "extra_info of rollout 0 has no 'uid': put the sample's identity there, or name its entries with "
            "sample_keys",
        ),
        (
            [{"uid": 1}, None],
            "extra_info of rollout 1 has no 'uid': put the sample's identity there, or name its entries with "
            "sample_keys",
        ),
        (
            [{"uid": 1}, {"uid": None}],
            "extra_info of rollout 1 has no 'uid': put the sample's identity there, or name its entries with "
            "sample_keys",
        ),
        ([{"uid": 1}], "column 'extra_infos' has 1 entries for 2 completions: give one each"),
    ],
)
def test_verl_rollouts_without_identity_are_refused(infos, message):
    with pytest.raises(UserError) as caught:
        verl_reward(judge)(["cub"] * 2, written(["s", "g"]), ["y"] * 2, infos)
    assert str(caught.value) == message


# The example


def test_the_ten_lines_of_the_readme_say_what_the_code_takes():
    import ast
    import inspect
    from pathlib import Path

    notebook = json.loads(
        (Path(__file__).parent.parent / "nbs" / "7_training" / "3_reward.ipynb").read_text(encoding="utf-8")
    )
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    example = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert len([line for line in example.splitlines() if line]) <= 10
    call = next(
        node
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "SpecificityReward"
    )
    assert {keyword.arg for keyword in call.keywords} <= set(inspect.signature(SpecificityReward).parameters)


# Trees of one's own


def test_the_file_of_a_label_tree_is_a_judge(tmp_path):
    own = tmp_path / "oaks.tree"
    own.write_text("@dataset oaks\n@title Oaks\n@domain plant\nplant\n  oak\n    * cork oak\n    * holm oak\n")
    reward = SpecificityReward(own)
    answers = written(["oak", "cork oak", "holm oak", "samoyed"])
    for named in ({}, {"dataset": ["oaks"] * 4}):
        assert reward(answers, label=["cork oak"] * 4, uid=["u"] * 4, **named) == [0.0, 1.0, 0.0, None]
    with pytest.raises(UserError, match="no label tree 'unicorns'"):
        SpecificityReward("unicorns")


def test_a_batch_in_which_nothing_was_judged_ends_the_run():
    with pytest.raises(UserError, match=r"60 of 60 answers got no verdict \(the first: .*\): look at the judge"):
        paid(["?"] * 60)
    assert paid(["?"] * 59 + ["s"])[:59] == [None] * 59 and paid(["?"] * 8) == [None] * 8
