"What rules teach, worked out: against groups written out one by one, against formulas, and where it is refused."

import math
from itertools import product

import numpy as np
import pytest

from speciarl.core.scale import Category, UserError
from speciarl.training.rules import advantages, find_rule
from speciarl.training.why import pay, simulate, tipping_share

ACTIONS = {"name": Category.SPECIFIC, "back_off": Category.LESS_SPECIFIC, "generic": Category.GENERIC}


def written_out(action, rule, rollouts, mix, p, q, rank, scale) -> float:
    "The expected pay of the first rollout, which does `action`, over every sequence of categories of the others."
    pays = find_rule(rule, rank)
    right = {"name": p, "back_off": q, "generic": 1.0, "abstain": 1.0}
    level = ACTIONS | {"abstain": Category.ABSTAIN}
    chance = dict.fromkeys((Category.WRONG, *level.values()), 0.0)
    for one, share in mix.items():
        chance[level[one]] += share * right[one]
        chance[Category.WRONG] += share * (1 - right[one])
    total = 0.0
    for own, likely in ((level[action], right[action]), (Category.WRONG, 1 - right[action])):
        for others in product(chance, repeat=rollouts - 1):
            paid = pays([own, *others])
            gained = advantages(paid)[0] if scale == "group" else paid[0]
            total += likely * math.prod(chance[c] for c in others) * gained
    return total


@pytest.mark.parametrize("scale", ["none", "group"])
@pytest.mark.parametrize("rule, rank", [("dynamic", 1), ("dynamic", 2), ("priced", 1), ("scala1", 1)])
def test_the_sum_is_that_over_all_sequences(rule, rank, scale):
    mix = {"name": 0.4, "back_off": 0.3, "generic": 0.2, "abstain": 0.1}
    found = pay(rule, 4, 0.4, 0.3, 0.8, generic=0.2, abstaining=0.1, anchor_rank=rank, scale=scale)
    for action in mix:
        expected = written_out(action, rule, 4, mix, 0.3, 0.8, rank, scale)
        assert float(getattr(found, action)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("p, q, rollouts", [(0.2, 1.0, 10), (0.3, 1.0, 5), (0.5, 0.9, 15), (0.15, 0.6, 20)])
def test_the_tipping_share_is_the_formula(p, q, rollouts):
    assert tipping_share(p, rollouts, q) == pytest.approx((1 - (p / q) ** (1 / (rollouts - 1))) / p, abs=1e-6)


def test_where_nothing_tips():
    assert tipping_share(0.1, 10) == math.inf  # caution from every start
    assert tipping_share(0.8, 10, q=0.7) == 0.0  # the name is surer than the group
    assert tipping_share(0.55, 10, scale="group") == 0.0 < tipping_share(0.55, 10)


def test_larger_groups_tip_earlier_and_a_lower_rank_later():
    by_size = [tipping_share(0.3, n) for n in (5, 10, 15, 20)]
    by_rank = [tipping_share(0.5, 10, anchor_rank=k) for k in (1, 2, 3, 4)]
    assert by_size == sorted(by_size, reverse=True) and by_rank == sorted(by_rank)


def test_arrays_are_broadcast():
    found = pay("dynamic", 5, [[0.1], [0.9]], [0.2, 0.4, 0.6])
    assert found.pull.shape == (2, 3)
    assert found.pull[1, 2] == pytest.approx(float(pay("dynamic", 5, 0.9, 0.6).pull))


def test_a_run_ends_on_the_side_of_the_tipping_share_where_it_began():
    tip = tipping_share(0.2, 10, scale="group")
    low, high = simulate("dynamic", 10, [tip - 0.05, tip + 0.05], [0.2, 0.2], steps=2000)[-1, :, 0]
    assert low < 0.01 and high > 0.9


def test_a_static_rule_ends_in_guessing_and_a_priced_one_in_caution_from_every_start():
    starts, chances = [0.05, 0.5, 0.95], [0.2] * 3
    assert (simulate("reward3", 10, starts, chances, steps=1500)[-1, :, 0] > 0.9).all()
    assert (simulate("priced", 10, starts, chances, steps=3000, scale="none", rate=3.0)[-1, :, 0] < 0.1).all()


def test_pictures_that_share_a_logit_pull_each_other():
    "An easy picture alone goes up; so does a hard one beside it, which alone goes down."
    alone = simulate("dynamic", 10, [0.5], [0.15])[-1, 0, 0]
    beside = simulate("dynamic", 10, [0.5, 0.5, 0.5], [0.15, 0.6, 0.6], shared=True)[-1, 0, 0]
    assert alone < 0.1 and beside > 0.9


def test_drawn_groups_follow_the_seed():
    one, same, other = (
        simulate("dynamic", 5, [0.5], [0.4], generic=[0.2], steps=20, draws=np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    assert (one == same).all() and (one != other).any()


@pytest.mark.parametrize(
    "wrong, said",
    [
        (dict(rollouts=10, naming=1.2, p=0.5), "outside 0 to 1"),
        (dict(rollouts=10, naming=0.5, p=-0.1), "outside 0 to 1"),
        (dict(rollouts=10, naming=0.7, generic=0.6, p=0.5), "more than 1"),
        (dict(rollouts=10, naming=float("nan"), p=0.5), "outside 0 to 1"),
        (dict(rollouts=1, naming=0.5, p=0.5), "2 rollouts or more"),
        (dict(rollouts=5, naming=0.5, p=0.5, anchor_rank=0), "rank"),
        (dict(rollouts=5, naming=0.5, p=0.5, scale="batch"), "use one of none, group"),
    ],
)
def test_what_is_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        pay("dynamic", **wrong)
