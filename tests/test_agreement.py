"""Agreement between judges: kappa against values worked out by hand, what counts as settled, the confusion, and
simulated verdicts."""

import numpy as np
import pytest

from speciarl.metrics.agreement import (
    LEVELS,
    class_interval,
    confusion,
    kappa,
    ladder_noise,
    precision_recall,
    settled,
    simulated,
    undecided_share,
)


@pytest.mark.parametrize(
    "gold, found, expected",
    [
        ([0, 0, 4, 4], [0, 0, 4, 4], 1.0),
        ([0, 4], [4, 0], -1.0),
        # observed 3/4; expected (2 * 1 + 2 * 3) / 16 = 1/2
        ([0, 0, 4, 4], [0, 4, 4, 4], 0.5),
        # Cohen's textbook table 20, 5, 10, 15: observed 0.7, expected 0.5
        ([0] * 25 + [4] * 25, [0] * 20 + [4] * 5 + [0] * 10 + [4] * 15, 0.4),
        # three levels, 9 pairs: observed 6/9, expected (3 * 3 + 3 * 3 + 3 * 3) / 81 = 1/3
        ([0, 0, 0, 2, 2, 2, 4, 4, 4], [0, 0, 2, 2, 2, 4, 4, 4, 0], 0.5),
        # one judge is constant: no better than chance
        ([0, 2, 4], [4, 4, 4], 0.0),
    ],
)
def test_kappa_by_hand(gold, found, expected):
    assert kappa(confusion(gold, found)) == pytest.approx(expected)
    assert kappa(confusion(gold + [5, 3], found + [-1, -1])) == pytest.approx(expected), (
        "pairs without a verdict take no part"
    )


def test_kappa_without_variety_or_pairs():
    assert (
        kappa(confusion([4, 4], [4, 4])) == 1.0
        and np.isnan(kappa(confusion([4], [-1])))
        and np.isnan(kappa(np.zeros((6, 7), int)))
    )


def test_an_accepted_verdict_counts_as_gold_and_another_does_not():
    assert settled([2, 2, 2, 2], [[], [3], [3, 4], [3]], [3, 3, 4, -1]).tolist() == [2, 3, 4, 2]
    assert settled([], [], []).shape == (0,)
    with pytest.raises(ValueError):
        settled([2], [[], []], [2])


def test_confusion_counts_every_pair_once():
    counts = confusion([0, 0, 2, 5, -1], [0, 3, -1, 5, 4])
    assert counts.shape == (LEVELS, LEVELS + 1) and counts.sum() == 4, "a pair without a gold level is left out"
    assert counts[0, 0] == counts[0, 3] == counts[2, LEVELS] == counts[5, 5] == 1
    assert undecided_share(counts) == 0.25 and undecided_share(np.zeros((6, 7), int)) == 0.0


def test_precision_and_recall_count_a_missing_verdict_as_a_miss():
    found = precision_recall(confusion([4, 4, 4, 0, 2], [4, 4, -1, 4, 2]))
    assert found["specific"] == (2 / 3, 2 / 3, 3) and found["generic"] == (1.0, 1.0, 1)
    assert (
        np.isnan(found["wrong"][0])
        and found["wrong"][1:] == (0.0, 1)
        and found["abstain"][2] == 0
        and np.isnan(found["abstain"][1])
    )


def test_intervals_over_classes_are_reproducible_and_hold_the_value():
    dice = np.random.default_rng(0)
    gold = dice.integers(0, 6, 400)
    found = np.where(dice.random(400) < 0.8, gold, dice.integers(0, 6, 400))
    labels = [f"class {i // 5}" for i in range(400)]
    low, high = class_interval(kappa, gold, found, labels)
    assert low < kappa(confusion(gold, found)) < high and class_interval(kappa, gold, found, labels) == (low, high)


def test_simulated_verdicts_follow_the_confusion():
    codes = np.repeat([0, 2, 4, -1], 5000).reshape(4, 5000)
    counts = np.zeros((6, 7), int)
    counts[0, 0], counts[0, 2], counts[2, 6] = 3, 1, 1
    drawn = simulated(codes, counts, seed=1)
    assert drawn.shape == codes.shape and (simulated(codes, counts, seed=1) == drawn).all()
    assert set(drawn[0]) == {0, 2} and abs((drawn[0] == 2).mean() - 0.25) < 0.02
    assert (drawn[1] == -1).all() and (drawn[2] == 4).all() and (drawn[3] == -1).all(), (
        "unseen levels and missing codes stay as they are"
    )


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5])
def test_ladder_noise_moves_one_step(p):
    rates = ladder_noise(p) / 1e6
    assert np.allclose(rates.sum(1), 1) and np.allclose(np.diag(rates)[:5], 1 - p) and rates[:, 6].sum() == 0
    assert (
        rates[0, 1] == pytest.approx(p)
        and rates[2, 1] == rates[2, 3] == pytest.approx(p / 2)
        and rates[0, 2:].sum() == 0
    )
