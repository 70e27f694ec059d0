"""Rewards: the paper's formula, the release's ranks, and what must never change under permutation, missing verdicts
or broken formats."""

import subprocess
import sys
from collections import Counter
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.core.scale import Category, UserError, to_codes
from speciarl.metrics.rates import s_c_hm
from speciarl.training.rules import (
    FORMAT_PENALTY,
    RULES,
    advantages,
    anchor,
    dynamic,
    dynamic_single,
    find_rule,
    in_loss,
    is_flat,
    is_formatted,
    lacks_verdicts,
    noised,
    overlong_penalty,
    priced,
    register,
    reward,
    reward3,
    scala1,
    scala2,
    scala3,
)

W, A, G, LS, S, MS = Category
GROUPS = st.lists(st.sampled_from([*Category, None]), min_size=1, max_size=12)
JUDGED = st.lists(st.sampled_from(Category), min_size=1, max_size=12)
EQUAL = {name: rule for name, rule in RULES.items() if name != "dynamic-single"} | {
    f"dynamic {k}": find_rule("dynamic", k) for k in (2, 3)
}  # equal answers, equal pay


@pytest.mark.parametrize(
    "group, paid",
    [
        ([W, W, W], [0, 0, 0]),
        ([A, W, A], [1, 0, 1]),
        ([G, A, W], [1, 0, 0]),
        ([LS, G, LS], [1, 0, 1]),
        ([S, LS, MS], [1, 0, 1]),
        ([MS, S, S, LS], [1, 1, 1, 0]),
        ([MS, LS], [1, 0]),
        ([G, None, W], [1, None, 0]),
        ([None, None], [None, None]),
        ([], []),
    ],
)
def test_dynamic(group, paid):
    assert dynamic(group) == paid


def test_the_registry():
    assert set(RULES) == {"dynamic", "dynamic-single", "accuracy", "priced", "reward3", "scala1", "scala2", "scala3"}


@pytest.mark.parametrize(
    "rule, paid",
    [
        (reward3, [1, 1, 0, 0, 0, 0, None]),
        (scala1, [1, 1, 0.75, 0.5, 0.25, 0, None]),
        (scala2, [1, 1, 0.75, 0.5, 0, 0, None]),
        (scala3, [1, 1, 0.75, 0, 0, 0, None]),
        (priced, [1, 1, 0.6, 0.2, 0, 0, None]),
    ],
)
def test_static(rule, paid):
    assert rule([MS, S, LS, G, A, W, None]) == paid


@given(JUDGED)
def test_what_priced_pays_is_what_the_measure_counts(group):
    "The mean reward of answers is their specificity times their correctness: nothing else is paid, and nothing less."
    s, c, _ = s_c_hm(to_codes(group))
    assert fmean(priced(group)) == pytest.approx(float(s * c) if c else 0.0)


@pytest.mark.parametrize("q", [0.3, 0.5, 0.8, 1.0])
def test_priced_is_indifferent_where_the_exact_name_is_right_six_times_in_ten_that_the_group_is(q):
    exact, coarse, wrong = priced([S, LS, W])

    def gain(p: float) -> float:
        "What naming at chance p earns more than backing off to a group that is right with chance q."
        return p * exact + (1 - p) * wrong - (q * coarse + (1 - q) * wrong)

    assert gain(0.6 * q) == pytest.approx(0) and gain(0.6 * q + 0.01) > 0 > gain(0.6 * q - 0.01)


@pytest.mark.parametrize(
    "k, group, target, paid",
    [
        (1, [S, G, G, W], S, [1, 0, 0, 0]),
        (2, [S, G, G, W], G, [1, 1, 1, 0]),
        (3, [S, G, G, W], G, [1, 1, 1, 0]),
        (3, [S, S, LS, W], LS, [1, 1, 1, 0]),
        (2, [S, W, W, W], A, [1, 0, 0, 0]),  # the second best is wrong: c* is abstain, as in an all-wrong group
        (2, [A, W, W], A, [1, 0, 0]),
        (2, [MS, MS, LS], S, [1, 1, 0]),
        (2, [MS, LS, G], LS, [1, 1, 0]),
        (2, [S, None, G, None], G, [1, None, 1, None]),
        (3, [S, None, G, None], G, [1, None, 1, None]),  # fewer than k verdicts: the worst there is
        (3, [S], S, [1]),
        (2, [None, None], None, [None, None]),
        (2, [], None, []),
    ],
)
def test_the_rank_of_the_anchor(k, group, target, paid):
    assert anchor(group, k) is target and dynamic(group, k) == find_rule("dynamic", k)(group) == paid


@given(GROUPS)
def test_a_higher_rank_never_asks_for_more(group):
    paid = [sum(r or 0 for r in dynamic(group, k)) for k in (1, 2, 3, 12)]
    assert paid == sorted(paid)


@given(JUDGED)
def test_one_lucky_guess_does_not_move_the_second_best(group):
    if len(group) > 1:
        lucky = sorted(group)[:-1] + [MS]
        assert anchor(lucky, 2) is anchor(group, 2)


@pytest.mark.parametrize(
    "group, paid",
    [
        ([G, S, MS, S], [0, 1, 0, 0]),  # the ranks of specific and more specific tie, the first wins
        ([G, MS, S, S], [0, 1, 0, 0]),
        ([W, A, A], [0, 1, 0]),
        ([W, W], [0, 0]),
        ([None, G, G], [None, 1, 0]),
        ([None], [None]),
        ([], []),
    ],
)
def test_dynamic_single(group, paid):
    assert dynamic_single(group) == paid


@given(JUDGED)
def test_dynamic_single_pays_one_of_those_dynamic_pays(group):
    one, all_of_them = dynamic_single(group), dynamic(group)
    assert sum(one) == min(1, sum(all_of_them)) and all(a <= b for a, b in zip(one, all_of_them))


@given(JUDGED)
def test_dynamic_equals_the_ranks_of_the_release(group):
    rank = {MS: 1, S: 1, LS: 2, G: 3, A: 4, W: 5}
    best = min(rank[c] for c in group)
    assert dynamic(group) == [float(best < 5 and rank[c] == best) for c in group]


@given(GROUPS, st.randoms())
def test_rewards_follow_the_rollouts_in_any_order(group, random):
    order = list(range(len(group)))
    random.shuffle(order)
    for rule in EQUAL.values():
        paid = reward(rule, group)
        assert reward(rule, [group[i] for i in order]) == [paid[i] for i in order]


@given(GROUPS)
def test_a_finer_answer_is_never_paid_less_and_none_stays_none(group):
    for rule in EQUAL.values():
        paid = rule(group)
        assert [p is None for p in paid] == [c is None for c in group]
        judged = sorted((c, p) for c, p in zip(group, paid) if c is not None)
        assert [p for _, p in judged] == sorted(p for _, p in judged)
        assert {p for _, p in judged} <= {0.0, 0.2, 0.25, 0.5, 0.6, 0.75, 1.0}


@given(GROUPS)
def test_a_missing_verdict_changes_nothing_for_the_others(group):
    for rule in RULES.values():
        assert rule([*group, None])[:-1] == rule(group)


@pytest.mark.parametrize(
    "categories, formatted, masked",
    [
        ([S, None, None, None], [True] * 4, True),
        ([None, None], [True] * 2, True),
        ([S, W, None, None], [True] * 4, False),
        ([S, None, None, None], [True, True, False, False], True),  # a broken format is no verdict either
        ([None, None, None, None], [True, False, False, False], True),
        ([S, None, None, None], [True, False, False, False], False),  # no verdict is missing: paid as released
        ([None, None], [False, False], False),
        ([S], [True], False),
        ([], [], False),
    ],
)
def test_groups_with_fewer_than_two_verdicts_are_masked_whole(categories, formatted, masked):
    assert lacks_verdicts(categories, formatted) is masked
    for rule in RULES:
        paid = reward(rule, categories, formatted)
        assert (paid == [None] * len(categories)) is (masked or not categories)
        assert any(in_loss(paid)) is bool(categories and not masked)
        unmasked = reward(rule, categories, formatted, least=0)
        assert in_loss(unmasked) == [c is not None or not good for c, good in zip(categories, formatted)]


def test_flat_groups_and_the_loss():
    assert in_loss([None, 0.0, 1.0, -1.0]) == [False, True, True, True] and in_loss([]) == []
    assert [is_flat(r) for r in ([], [None], [0.0, 0.0], [1.0, None], [0.0, 1.0], [-1.0, None, 0.0])] == [
        True,
        True,
        True,
        True,
        False,
        False,
    ]


@given(JUDGED)
def test_somebody_is_paid_unless_all_are_wrong(group):
    assert (1.0 in dynamic(group)) == (max(group) > W)
    assert all(p == 0 for c, p in zip(group, dynamic(group)) if c is W)


@given(JUDGED)
def test_where_something_exact_was_said_both_rules_agree(group):
    if max(group) >= S:
        assert dynamic(group) == reward3(group) and anchor(group) is S


@given(GROUPS, st.data())
def test_a_broken_format_pays_the_penalty_and_is_outside_the_anchor(group, data):
    formatted = data.draw(st.lists(st.booleans(), min_size=len(group), max_size=len(group)))
    for rule in RULES:
        paid = reward(rule, group, formatted, least=0)
        assert all(p == FORMAT_PENALTY == -1.0 for p, good in zip(paid, formatted) if not good)
        assert [p for p, good in zip(paid, formatted) if good] == RULES[rule](
            [c for c, good in zip(group, formatted) if good]
        )
        assert reward(rule, group, formatted) in (paid, [None] * len(group))


@pytest.mark.parametrize(
    "text, plain, with_thought",
    [
        ("<think> a </think> <answer> b </answer>", True, True),
        ("<think>\na\n</think>\n\n<answer>\nb\n</answer>", True, True),
        ("<answer>b</answer>", True, False),
        ("<think> </think><answer>b</answer>", True, False),
        ("<think>a<answer>b</answer>", False, False),  # the thought never ends, so the tag is one it mentions
        ("<answer>b</answer><think>a</think>", True, False),
        ("<think>a</think><answer></answer>", False, False),
        ("<think>a</think><answer> \n</answer>", False, False),
        ("<think>a</think><answer>b", False, False),
        ("<Answer>b</Answer>", True, False),
        ("<THINK>a</THINK><ANSWER>b</ANSWER>", True, True),
        ("<think>a <answer>b</answer></think>", False, False),
        ("<think>a</think><answer>b</answer><answer></answer>", False, False),
        ("", False, False),
    ],
)
def test_the_format(text, plain, with_thought):
    assert is_formatted(text) is plain and is_formatted(text, require_think=True) is with_thought


STEPS = {
    MS: {LS},
    S: {LS},
    LS: {S, G},
    G: {LS, A},
    A: {G, W},
    W: {A},
}  # the ladder of the release, where more specific counts as specific


@given(GROUPS, st.floats(0, 1), st.text(max_size=5), st.integers(0, 9))
def test_noise_moves_one_step_and_repeats(group, p, key, seed):
    moved = noised(group, p, key, seed)
    assert moved == noised(group, p, key, seed) and all(b is a or b in STEPS[a] for a, b in zip(group, moved))
    assert all(b is None for a, b in zip(group, moved) if a is None)
    assert noised(group, 0, key, seed) == group and all(
        a is None or b in STEPS[a] for a, b in zip(group, noised(group, 1, key, seed))
    )


@pytest.mark.parametrize("p", [0.05, 0.1, 0.25])
def test_noise_has_the_frequencies_of_the_release(p):
    n = 20_000
    for category in Category:
        counts = Counter(noised([category] * n, p, "frequencies"))
        spread = 4 * (p * (1 - p) / n) ** 0.5
        assert counts[category] / n == pytest.approx(1 - p, abs=spread)
        for target in STEPS[category]:
            assert counts[target] / n == pytest.approx(p / len(STEPS[category]), abs=spread)


def test_noise_does_not_depend_on_what_else_is_drawn():
    assert noised([G, G, None, W, G], 0.5, "k") == [
        *noised([G, G], 0.5, "k"),
        None,
        *noised([S, S, S, W, G], 0.5, "k")[3:],
    ]
    streams = {
        tuple(noised([G] * 40, 0.5, key, seed)) for key in ("a|0|0", "a|1|0", "a|0|1", "b|0|0") for seed in (0, 1)
    }
    assert len(streams) == 8, "sample, step, place in the batch and seed each change the draws"


def test_noise_is_the_same_on_every_machine():
    assert "".join(c.name[0] for c in noised([G] * 24, 0.5, "plate-7|12|3", 42)) == "LALAGGGGGGGAGLAAGLAGALAG"


@pytest.mark.parametrize(
    "length, penalty", [(0, 0), (1536, 0), (1537, -1 / 512), (1792, -0.5), (2047, -511 / 512), (2048, -1), (9999, -1)]
)
def test_the_overlong_penalty(length, penalty):
    assert overlong_penalty(length) == penalty


def test_the_overlong_penalty_equals_that_of_trl():
    from trl.rewards import get_soft_overlong_punishment

    for limit, buffer in ((2048, 512), (16, 4), (100, 99)):
        lengths = range(limit + 1)
        assert [overlong_penalty(n, limit, buffer) for n in lengths] == pytest.approx(
            get_soft_overlong_punishment(limit, buffer)([[0] * n for n in lengths])
        )


def test_advantages():
    assert advantages([1.0, 1.0, None]) == [0, 0, 0] and advantages([None, 1.0]) == [0, 0] and advantages([]) == []
    assert advantages([1.0, 0.0], eps=0.0) == pytest.approx([0.5**0.5, -(0.5**0.5)])
    assert advantages([1.0, None, 0.0], eps=0.0)[1] == 0


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, None]), max_size=12))
def test_advantages_add_up_to_nothing(rewards):
    assert sum(advantages(rewards)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: reward("dynamik", []),
            "unknown reward rule 'dynamik': use one of accuracy, dynamic, dynamic-single, priced, reward3, scala1, "
            "scala2, scala3",
        ),
        (
            lambda: find_rule("dynamic", 0),
            "anchor_rank is 0: use 1 for the best rollout, 2 for the second best, and so on",
        ),
        (
            lambda: find_rule("dynamic-single", 2),
            "the reward rule 'dynamic-single' takes no anchor_rank: use dynamic, or leave anchor_rank at 1",
        ),
        (lambda: noised([W], 5, ""), "noise is 5: give a share from 0 to 1, for example 0.1"),
        (
            lambda: overlong_penalty(9, 16, 17),
            "an overlong buffer of 17 does not fit a limit of 16 tokens: choose 1 to 16",
        ),
        (
            lambda: overlong_penalty(9, 16, 0),
            "an overlong buffer of 0 does not fit a limit of 16 tokens: choose 1 to 16",
        ),
        (lambda: reward("dynamic", [W], [True, False]), "formatted has 2 entries for 1 rollouts: give one each"),
        (
            lambda: register("dynamic")(lambda group: group),
            "a reward rule called 'dynamic' exists: choose another name",
        ),
    ],
)
def test_messages(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value) == message


def test_a_rule_of_ones_own():
    def harsh(group):
        return [None if c is None else float(c is MS) for c in group]

    try:
        assert register("harsh")(harsh) is harsh and reward("harsh", [MS, S, None]) == [1, 0, None]
        register("harsh")(harsh)  # the same function again, as when a notebook cell runs twice
    finally:
        RULES.pop("harsh", None)


def test_rewards_need_no_torch():
    code = (
        "import sys, speciarl.training.rules; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', "
        "'pandas', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
