"""Metrics: hand-worked values, exact best-of-k against enumeration, and intervals."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speciarl.core.scale import MISSING, WIRE_NAMES, Category, UserError
from speciarl.metrics.rates import (
    METRICS,
    WEIGHTS,
    best_of_k,
    best_of_k_curve,
    best_of_n,
    harmonic_mean,
    pass_at_k,
    pass_at_k_curve,
    rates,
    s_c_hm,
    score,
    tally,
    weight_vector,
)
from speciarl.metrics.resampling import bootstrap, counts_per_image, interval_kind, intervals, resample

TEN = np.array([5, 4, 4, 4, 3, 3, 2, 2, 1, 0], dtype=np.int8)
CODES = hnp.arrays(np.int8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(-1, 5))


def test_the_worked_example():
    s, c, hm = s_c_hm(TEN)
    assert (s, c) == (pytest.approx(5.6 / 8), 0.8)
    assert hm == pytest.approx(2 * 0.7 * 0.8 / 1.5)


def test_scores_carry_shares_missing_and_bounds():
    scores = score(np.append(TEN, [MISSING, MISSING]))
    assert (scores.n, scores.judged, scores.missing, scores.weights) == (12, 10, 2 / 12, "released")
    assert scores.shares == {
        "wrong": 0.1,
        "abstain": 0.1,
        "generic": 0.2,
        "less specific": 0.2,
        "specific": 0.3,
        "more specific": 0.1,
    }
    assert (scores.correctness_low, scores.correctness, scores.correctness_high) == (8 / 12, 0.8, 10 / 12)
    assert scores.format_failures is None


def test_abstentions_and_wrong_answers_do_not_touch_specificity():
    assert s_c_hm(np.array([4, 2]))[0] == s_c_hm(np.array([4, 2, 0, 1, 0]))[0] == 0.6
    assert s_c_hm(np.array([4, 2, 0, 1, 0]))[1] == 0.4


def test_format_failures_are_a_share_of_the_judged_and_must_be_wrong():
    assert score(np.array([0, 0, 4, -1]), format_failure=[True, False, False, False]).format_failures == pytest.approx(
        1 / 3
    )
    message = "format_failure must have one entry per answer, and an answer with a broken format must be coded wrong"
    for flags in ([True], [False, False, True, False], [False, False, False, True]):
        with pytest.raises(UserError) as caught:
            score(np.array([0, 0, 4, -1]), format_failure=flags)
        assert str(caught.value) == message


def test_what_does_not_exist_is_nan_not_zero():
    none_correct = score(np.array([0, 1]))
    assert np.isnan(none_correct.specificity) and none_correct.correctness == 0 and none_correct.hm == 0
    nothing = score(np.array([], dtype=int))
    assert nothing.n == 0 and all(
        np.isnan([nothing.missing, nothing.specificity, nothing.correctness, nothing.hm, nothing.correctness_low])
    )
    all_missing = score(np.full(3, MISSING))
    assert all_missing.missing == 1 and np.isnan(all_missing.correctness)
    assert (all_missing.correctness_low, all_missing.correctness_high) == (0, 1)


@pytest.mark.parametrize(
    "s, c, hm", [(1, 1, 1), (0.5, 0.5, 0.5), (1, 0.5, 2 / 3), (0, 0, 0), (0, 1, 0), (float("nan"), 0, 0)]
)
def test_harmonic_mean(s, c, hm):
    assert harmonic_mean(s, c) == pytest.approx(hm)


def test_harmonic_mean_of_unknown_specificity_is_unknown():
    assert np.isnan(harmonic_mean(float("nan"), 0.5))


def test_weights_presets_and_mappings():
    assert weight_vector("released").tolist() == [0, 0, 0.2, 0.6, 1, 1]
    flat = dict.fromkeys(WEIGHTS["released"], 1.0)
    assert s_c_hm(TEN, flat)[0] == 1 and score(TEN, flat).weights == "custom"


@pytest.mark.parametrize(
    "weights, message",
    [
        ("relased", "unknown weights 'relased': use one of released"),
        (
            {"specific": 1},
            "weights must give a number from 0 to 1 to each of generic, less specific, specific, more specific",
        ),
        (
            {**WEIGHTS["released"], "wrong": -1},
            "weights must give a number from 0 to 1 to each of generic, less specific, specific, more specific",
        ),
        (
            {**WEIGHTS["released"], "generic": 2},
            "weights must give a number from 0 to 1 to each of generic, less specific, specific, more specific",
        ),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(UserError) as caught:
        score(TEN, weights)
    assert str(caught.value) == message


@pytest.mark.parametrize("codes", [[6], [-2], [0.5], [None], ["specific"]])
def test_bad_codes(codes):
    with pytest.raises(UserError) as caught:
        tally(np.array(codes))
    assert (
        str(caught.value)
        == "codes must be whole numbers from -1 (no verdict) to 5 (more specific): convert categories with to_codes"
    )


@given(CODES)
@settings(deadline=None)
def test_the_vectorised_rates_equal_a_plain_loop(codes):
    weights = WEIGHTS["released"]
    for row, s, c in zip(codes, *s_c_hm(codes)[:2]):
        judged = [Category(x) for x in row.tolist() if x != MISSING]
        correct = [x for x in judged if x.correct]
        assert np.isnan(c) if not judged else c == pytest.approx(len(correct) / len(judged))
        assert np.isnan(s) if not correct else s == pytest.approx(sum(weights[x.wire] for x in correct) / len(correct))


# best-of-N


def test_best_of_n_ignores_missing_and_ranks_more_specific_first():
    assert best_of_n(np.array([[0, 2, 4], [-1, 1, 0], [-1, -1, -1], [4, 5, 4]])).tolist() == [4, 1, MISSING, 5]


@given(CODES, st.data())
@settings(deadline=None)
def test_best_of_k_equals_the_enumeration_of_all_subsets(codes, data):
    k = data.draw(st.integers(1, codes.shape[1]))
    for row, probabilities in zip(codes, best_of_k(codes, k)):
        best = [max(subset) for subset in combinations(row.tolist(), k)]
        assert probabilities == pytest.approx([best.count(category) / len(best) for category in range(6)])


@given(CODES)
@settings(deadline=None)
def test_the_curve_runs_from_one_answer_to_best_of_n(codes):
    curve = best_of_k_curve(codes)
    assert curve[1] == pytest.approx(tuple(x.item() for x in s_c_hm(codes.ravel())), nan_ok=True)
    assert curve[codes.shape[1]] == pytest.approx(tuple(x.item() for x in s_c_hm(best_of_n(codes))), nan_ok=True)


def test_correctness_of_the_best_never_falls_with_k():
    codes = np.random.default_rng(0).integers(0, 6, (40, 64))
    correctness = [c for _, c, _ in best_of_k_curve(codes, range(1, 65)).values()]
    assert len(correctness) == 64 and (np.diff(correctness) >= -1e-12).all()


def test_large_binomials_do_not_overflow():
    codes = np.zeros((1, 2000), dtype=np.int8)
    codes[0, 0] = 4
    assert best_of_k(codes, 1000)[0, 4] == pytest.approx(0.5)


@pytest.mark.parametrize("k", [0, 4])
def test_best_of_too_many(k):
    with pytest.raises(UserError) as caught:
        best_of_k(np.zeros((2, 3), int), k)
    assert (
        str(caught.value) == f"cannot take the best of {k}: there are 3 answers to each image, so k must be from 1 to 3"
    )


# intervals


def test_multinomial_counts_equal_resampled_indices_in_distribution():
    codes = np.random.default_rng(0).choice(
        6, size=(1, 200, 3), p=[0.2, 0.1, 0.2, 0.1, 0.3, 0.1]
    )  # three answers to each image
    fast = resample(counts_per_image(codes), 4000, seed=1)
    rng = np.random.default_rng(2)
    slow = np.array([tally(codes[0, rng.integers(200, size=200)].ravel()) for _ in range(4000)])
    assert fast.mean(0) == pytest.approx(slow.mean(0), abs=1.0)
    assert fast.std(0) == pytest.approx(slow.std(0), rel=0.06)
    assert np.cov(fast.T)[0, 4] == pytest.approx(np.cov(slow.T)[0, 4], rel=0.15)


def test_answers_to_one_image_stay_together():
    once = np.tile(np.arange(100) % 2 * 4, (1, 1))
    low, high = bootstrap(once, "correctness")
    assert bootstrap(np.repeat(once[..., None], 10, axis=2), "correctness") == (
        low,
        high,
    )  # ten equal answers are no new images


def test_seeds_widen_the_interval_from_three_on():
    good, bad = np.array([4, 4, 4, 0] * 50), np.array([4, 0, 0, 0] * 50)
    narrow, wide = (
        bootstrap(np.stack([good, bad]), "correctness"),
        bootstrap(np.stack([good, bad, good, bad]), "correctness"),
    )
    assert (interval_kind(2), interval_kind(3)) == ("images only", "images within seeds")
    assert narrow[0] > 0.4 and narrow[1] < 0.6 and wide[0] < 0.35 and wide[1] > 0.65


def test_one_draw_of_images_serves_all_seeds():
    codes = np.tile([4, 0], (3, 50))  # three equal runs know no more about the images than one
    assert bootstrap(codes, "correctness") == pytest.approx(bootstrap(codes[0], "correctness"), abs=0.02)


def test_missing_images_are_resampled_too():
    drawn = resample(counts_per_image(np.array([4] * 90 + [-1] * 10)), 500)
    assert drawn.sum(1).std() > 2 and abs(drawn.sum(1).mean() - 90) < 1


def test_intervals_are_repeatable_contain_the_value_and_follow_the_weights():
    codes = np.random.default_rng(0).integers(-1, 6, (5, 120))
    first = intervals(codes, seed=3)
    assert tuple(first) == METRICS and first == intervals(codes, seed=3) and first != intervals(codes, seed=4)
    assert all(low < value < high for value, low, high in first.values())
    assert intervals(codes, dict.fromkeys(WEIGHTS["released"], 1.0))["specificity"] == (1, 1, 1)


def test_intervals_without_anything_to_measure_are_nan():
    assert np.isnan(bootstrap(np.zeros(5, int), "specificity")).all()
    assert np.isnan(bootstrap(np.array([], dtype=int), "hm")).all()


def test_a_statistic_of_ones_own():
    low, high = bootstrap(np.array([4] * 50 + [5] * 50), lambda counts: counts[:, 5] / counts.sum(1))
    assert low < 0.5 < high


def test_bad_statistics_and_shapes():
    with pytest.raises(UserError) as caught:
        bootstrap(TEN, "accuracy")
    assert (
        str(caught.value)
        == "unknown statistic 'accuracy': use one of specificity, correctness, hm, or a function of category counts"
    )
    with pytest.raises(UserError) as caught:
        bootstrap(np.zeros((1, 1, 1, 1), int))
    assert str(caught.value) == "codes must have the shape (images,), (seeds, images) or (seeds, images, answers)"


def test_rates_accept_expected_counts():
    assert rates(np.array([0.5, 0, 0, 0, 0.5, 0]))[1] == 0.5 and len(WIRE_NAMES) == 6


@given(CODES, st.integers(1, 6), st.sampled_from([Category.GENERIC, Category.SPECIFIC]))
@settings(max_examples=60, deadline=None)
def test_pass_at_k_is_the_share_of_subsets_with_a_good_answer(codes, k, at_least):
    n = codes.shape[1]
    if k > n:
        with pytest.raises(UserError):
            pass_at_k(codes, k, at_least)
        return
    expected = [np.mean([max(subset) >= at_least for subset in combinations(row.tolist(), k)]) for row in codes]
    assert np.allclose(pass_at_k(codes, k, at_least), expected)
    assert pass_at_k_curve(codes, [k], at_least)[k] == pytest.approx(np.mean(expected))


def test_pass_at_k_grows_with_k_and_covers_every_k():
    codes = np.random.default_rng(0).integers(-1, 6, (20, 64))
    curve = pass_at_k_curve(codes)
    assert list(curve) == list(range(1, 65)) and (np.diff(list(curve.values())) >= -1e-12).all()
    assert curve[1] == pytest.approx((codes >= Category.SPECIFIC).mean()) and curve[64] == pytest.approx(
        (codes.max(1) >= Category.SPECIFIC).mean()
    )


def test_scores_show_themselves_in_a_notebook():
    html = score([4, 2, 0, -1], format_failure=[False, False, True, False])._repr_html_()
    for part in ("4 answers, weights released", "<th>HM</th>", "<td>0.600</td>", "<td>0.667</td>", "format failures"):
        assert part in html
    assert "<td>–</td>" in score([0])._repr_html_() and "format failures" not in score([0])._repr_html_()
