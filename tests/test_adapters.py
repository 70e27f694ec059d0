"The reward function TRL calls: whole groups, counted failures."

import pytest

from speciarl.adapters import SpecificityReward, completion_text, groups_of, level_metrics
from speciarl.reward import FORMAT_PENALTY
from speciarl.scale import Category, UserError
from speciarl.verdicts import Verdict

C = Category


def judge(pairs, datasets=None):
    "Knows an answer by its first letter: s specific, l less specific, g generic, a abstain, ? no verdict, else wrong."
    known = {"s": C.SPECIFIC, "l": C.LESS_SPECIFIC, "g": C.GENERIC, "a": C.ABSTAIN, "m": C.MORE_SPECIFIC, "?": None}
    return [Verdict(known.get(answer[0], C.WRONG), "test") for _, answer in pairs]


def paid(answers, n=None, rule="dynamic", uid=None, **kwargs):
    texts = [f"<answer>{a}</answer>" if a is not None else "no tag" for a in answers]
    return SpecificityReward(judge, rule, n or len(answers))(texts, ["y"] * len(answers), uid=uid or ["u"] * len(answers), **kwargs)


def test_duplicated_samples_stay_separate_groups():
    assert paid(["s", "g", "g", "x"], n=2) == [1, 0, 1, 0], "the second group is anchored on its own best"


def test_the_order_of_blocks_does_not_matter():
    one, two = ["s", "g", "x"], ["g", "x", "a"]
    uids = ["1"] * 3 + ["2"] * 3
    assert paid(one + two, 3, uid=uids) == paid(one) + paid(two)
    assert paid(two + one, 3, uid=uids) == paid(two) + paid(one)


def test_a_missing_verdict_is_no_reward_and_no_anchor():
    assert paid(["?", "g", "x"]) == [None, 1, 0]


def test_broken_formats_pay_the_penalty_and_are_not_judged():
    seen = []
    def watching(pairs, datasets=None):
        seen.extend(pairs)
        return judge(pairs)
    texts = ["no tag", "<answer></answer>", "<answer> </answer>", "<answer>g</answer>"]
    rewards = SpecificityReward(watching, "dynamic", 4)(texts, ["y"] * 4, uid=["u"] * 4)
    assert rewards == [FORMAT_PENALTY] * 3 + [1] and seen == [("y", "g")], "an empty tag is a format failure too, as in the release"


def test_more_specific_counts_like_specific():
    assert paid(["m", "s", "l"]) == [1, 1, 0]
    assert paid(["m", "s", "l"], rule="reward3") == [1, 1, 0]


def test_metrics_add_up_and_count_what_failed():
    logged = {}
    paid(["s", "?", None, "x"], log_metric=logged.__setitem__)
    assert logged["share_missing"] == logged["share_unformatted"] == logged["share_specific"] == logged["share_wrong"] == 0.25
    assert sum(logged.values()) == pytest.approx(1)
    assert set(logged) == set(level_metrics([C.WRONG], [True]))


def test_data_sets_reach_the_judge_in_step_with_the_answers():
    seen = []
    def watching(pairs, datasets=None):
        seen.append(datasets)
        return judge(pairs)
    SpecificityReward(watching, "dynamic", 3)(["<answer>s</answer>", "none", "<answer>g</answer>"], ["y"] * 3, uid=["u"] * 3, dataset=["birds", "food", "cars"])
    assert seen == [["birds", "cars"]]


@pytest.mark.parametrize("uids, n, message", [
    (None, 2, "the batch has no column 'uid'"), (["a", "a", "b"], 2, "3 completions are not whole groups of 2"),
    (["a", "b", "b", "b"], 2, "completions 0 to 1 belong to 2 samples"),
])
def test_groups_that_are_not_whole_are_refused(uids, n, message):
    with pytest.raises(UserError, match=message):
        groups_of(uids, n)


def test_completion_text_of_all_forms():
    assert completion_text([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]) == "ab"
