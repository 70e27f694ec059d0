"""Rewards: the paper's formula, the release's ranks, and what must never change under permutation, missing verdicts or broken formats."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciarl.reward import FORMAT_PENALTY, RULES, advantages, anchor, dynamic, register, reward, reward3
from speciarl.scale import Category, UserError

W, A, G, LS, S, MS = Category
GROUPS = st.lists(st.sampled_from([*Category, None]), min_size=1, max_size=12)
JUDGED = st.lists(st.sampled_from(Category), min_size=1, max_size=12)


@pytest.mark.parametrize("group, paid", [
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
])
def test_dynamic(group, paid):
    assert dynamic(group) == paid


def test_static():
    assert reward3([MS, S, LS, G, A, W, None]) == [1, 1, 0, 0, 0, 0, None]


@given(JUDGED)
def test_dynamic_equals_the_ranks_of_the_release(group):
    rank = {MS: 1, S: 1, LS: 2, G: 3, A: 4, W: 5}
    best = min(rank[c] for c in group)
    assert dynamic(group) == [float(best < 5 and rank[c] == best) for c in group]


@given(GROUPS, st.randoms())
def test_rewards_follow_the_rollouts_in_any_order(group, random):
    order = list(range(len(group)))
    random.shuffle(order)
    for rule in RULES:
        paid = reward(rule, group)
        assert reward(rule, [group[i] for i in order]) == [paid[i] for i in order]


@given(GROUPS)
def test_a_finer_answer_is_never_paid_less_and_none_stays_none(group):
    for rule in RULES:
        paid = reward(rule, group)
        assert [p is None for p in paid] == [c is None for c in group]
        judged = sorted((c, p) for c, p in zip(group, paid) if c is not None)
        assert [p for _, p in judged] == sorted(p for _, p in judged) and {p for _, p in judged} <= {0.0, 1.0}


@given(GROUPS)
def test_a_missing_verdict_changes_nothing_for_the_others(group):
    for rule in RULES:
        assert reward(rule, [*group, None])[:-1] == reward(rule, group)


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
        paid = reward(rule, group, formatted)
        assert all(p == FORMAT_PENALTY == -1.0 for p, good in zip(paid, formatted) if not good)
        assert [p for p, good in zip(paid, formatted) if good] == reward(rule, [c for c, good in zip(group, formatted) if good])


def test_advantages():
    assert advantages([1.0, 1.0, None]) == [0, 0, 0] and advantages([None, 1.0]) == [0, 0] and advantages([]) == []
    assert advantages([1.0, 0.0], eps=0.0) == pytest.approx([0.5**0.5, -(0.5**0.5)])
    assert advantages([1.0, None, 0.0], eps=0.0)[1] == 0


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, None]), max_size=12))
def test_advantages_add_up_to_nothing(rewards):
    assert sum(advantages(rewards)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("call, message", [
    (lambda: reward("dynamik", []), "unknown reward rule 'dynamik': use one of dynamic, reward3"),
    (lambda: reward("dynamic", [W], [True, False]), "formatted has 2 entries for 1 rollouts: give one each"),
    (lambda: register("dynamic")(lambda group: group), "a reward rule called 'dynamic' exists: choose another name"),
])
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
    code = "import sys, speciarl.reward; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'pandas', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
