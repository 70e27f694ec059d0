"""Paired tests: against enumeration, against formulas, and what is refused."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusal import message

from speciarl.metrics.compare import (
    binomial_p,
    by_group,
    cohens_h,
    compare_all,
    differences,
    draw_pairs,
    holm,
    mcnemar,
    paired,
    paired_tests,
    two_sided,
    wilson,
    worst,
)
from speciarl.metrics.rates import s_c_hm
from speciarl.metrics.resampling import counts_per_image, intervals, resample

RNG = np.random.default_rng(0)
A, B = RNG.integers(-1, 6, 120), RNG.integers(-1, 6, 120)


def test_runs_are_paired_by_sample_and_not_by_place():
    a, b = paired(["x", "y", "z"], np.array([[0], [1], [2]]), ["z", "x", "y"], np.array([[5], [3], [4]]))
    assert a.ravel().tolist() == [0, 1, 2] and b.ravel().tolist() == [3, 4, 5]


def test_other_samples_are_refused_by_name():
    assert (
        message(paired, ["x"], [0], ["y"], [0])
        == "the runs have different samples (2 are in one only, such as 'x' in the first): compare runs over the "
        "same data"
    )
    assert (
        message(paired, ["x", "x"], [0, 1], ["x"], [0])
        == "the first run must have every sample id once, and one row of codes for each"
    )
    assert (
        message(paired, ["x"], [0], ["x"], [0, 1])
        == "the second run must have every sample id once, and one row of codes for each"
    )
    assert message(differences, A, B[:-1]) == "the runs have 120 and 119 images: compare runs over the same data"
    assert message(differences, A, B, classes=["x"]) == "there are 1 classes for 120 images: give one for each image"
    assert message(differences, A[:0], A[:0]) == "there are no images to compare; give runs with at least one"


def test_the_difference_is_that_of_the_tables():
    found = differences(A, B, n_boot=50)
    for name, a, b in zip(("specificity", "correctness", "hm"), s_c_hm(A), s_c_hm(B)):
        assert found[name].value == pytest.approx(float(b - a))


def test_the_same_images_are_drawn_for_both_runs():
    counts = counts_per_image(A)
    a, b = draw_pairs(counts, counts, 100)
    assert np.array_equal(a, b)
    flipped = draw_pairs(counts, counts_per_image(A[::-1]), 100)
    assert not np.array_equal(*flipped)


def test_one_run_alone_is_resampled_as_the_metrics_do():
    "The spread of the paired draws of one run is that of the ordinary bootstrap."
    counts = counts_per_image(RNG.integers(0, 6, (3, 200)))
    spread = [draws[:, 0].std() for draws in (draw_pairs(counts, counts[:1], 4000)[0], resample(counts, 4000))]
    assert spread[0] == pytest.approx(spread[1], rel=0.1)


def test_seeds_are_drawn_from_three_on_and_may_differ_in_number():
    a, b = RNG.integers(0, 6, (5, 60)), RNG.integers(0, 6, (3, 60, 4))
    assert (
        paired_tests(a, b, n_boot=20).drawn == "images within seeds"
        and paired_tests(a[:2], b[:1], n_boot=20).drawn == "images only"
    )
    same = np.where(RNG.random((6, 60)) < 0.5, 4, 0)
    apart = np.stack([np.full(60, 4), np.zeros(60, int), np.full(60, 4), np.zeros(60, int)])  # seeds that differ wildly
    assert (
        differences(same, apart, n_boot=400)["correctness"].high
        - differences(same, apart, n_boot=400)["correctness"].low
        > 0.5
    )


def test_pairing_narrows_the_interval():
    first = np.where(np.arange(400) % 2, 4, 0)
    second = first.copy()
    second[:16:2] = 4  # eight images more
    found = differences(first, second)["correctness"]
    separate = [np.diff(intervals(codes)["correctness"][1:])[0] for codes in (first, second)]
    assert found.low > 0 and found.high - found.low < min(separate) / 2 and found.p < 0.01


def test_classes_that_differ_as_a_whole_widen_the_interval():
    first = np.zeros(200, int)
    second = np.repeat([4, 0, 4, 0], 50)
    images, classes = (
        differences(first, second, classes=units)["correctness"] for units in (None, np.repeat(list("abcd"), 50))
    )
    assert images.value == classes.value and classes.high - classes.low > 3 * (images.high - images.low)


def test_p_values_at_the_ends():
    assert (
        two_sided(np.ones(999)) == pytest.approx(2 / 1000)
        and two_sided(np.zeros(10)) == 1.0
        and np.isnan(two_sided(np.full(3, np.nan)))
    )
    found = differences(np.zeros(10, int), np.full(10, 4), n_boot=99)
    assert (
        np.isnan(found["specificity"].value)
        and np.isnan(found["specificity"].p)
        and found["correctness"].p == pytest.approx(0.02)
    )


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_binomial_by_its_sum(b, c):
    expected = min(1, 2 * sum(comb(b + c, i) for i in range(min(b, c) + 1)) / 2 ** (b + c))
    assert binomial_p(b, c) == binomial_p(c, b) == expected


def test_the_binomial_of_many_images():
    assert (
        binomial_p(0, 5000) == 0.0
        and binomial_p(16_500, 16_500) == 1.0
        and binomial_p(16_300, 16_700) == pytest.approx(0.02806, abs=1e-5)
    )  # 2.196 standard errors


def test_mcnemar_counts_only_images_with_two_verdicts():
    found = mcnemar(np.array([4, 0, 2, -1, 0, -1]), np.array([0, 4, 3, 4, -1, -1]))
    assert (found.first_only, found.second_only, found.images, found.p, found.odds_ratio) == (1, 1, 3, 1.0, 1.0)
    assert mcnemar(np.array([4, 2]), np.array([2, 2]), at_least=4).first_only == 1
    assert mcnemar(np.array([0]), np.array([4])).odds_ratio == float("inf") and np.isnan(
        mcnemar(np.array([4]), np.array([4])).odds_ratio
    )


def test_mcnemar_is_not_run_where_answers_are_no_coins():
    assert (
        message(mcnemar, np.zeros((2, 3), int), np.zeros((2, 3), int))
        == "McNemar's test needs one answer to each image, and the same images in both runs"
    )
    runs = paired_tests(np.zeros((3, 5), int), np.full(5, 4), n_boot=10)
    assert runs.mcnemar == "not run: McNemar's test needs one answer to each image in each run" and runs.images == 5
    assert paired_tests(np.zeros((1, 5, 1), int), np.full(5, 4), n_boot=10).mcnemar.second_only == 5


def test_effect_size():
    assert cohens_h(0.5, 0.5) == 0 and cohens_h(0.2, 0.6) == pytest.approx(-cohens_h(0.6, 0.2))
    assert paired_tests(np.zeros(5, int), np.full(5, 4), n_boot=10).cohens_h == pytest.approx(np.pi)


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=8))
def test_holm_by_its_definition(p):
    known = sorted(x for x in p if x == x)
    expected = {x: min(1, max((len(known) - i) * y for i, y in enumerate(known) if y <= x)) for x in known}
    for x, adjusted in zip(p, holm(p)):
        assert np.isnan(adjusted) if x != x else adjusted == pytest.approx(expected[x])


def test_all_pairs_or_one_baseline():
    runs = {"a": A, "b": B, "c": A[::-1]}
    every = compare_all(runs, n_boot=50)
    assert [(row["first"], row["second"]) for row in every[::3]] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [row["second"] for row in compare_all(runs, baseline="b", n_boot=50)[::3]] == ["a", "c"]
    assert np.allclose([row["p_holm"] for row in every], holm([row["p"] for row in every]))
    assert message(compare_all, runs, baseline="d") == "unknown baseline 'd': use one of a, b, c"
    assert message(compare_all, {"a": A}) == "there is only one run; give at least two to compare"


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_solves_its_equation(right, n):
    share = min(right, n) / n
    for end in wilson(share, n):
        assert 0 <= end <= 1 and abs(end - share) == pytest.approx(1.959964 * (end * (1 - end) / n) ** 0.5, abs=1e-6)


def test_tables_by_group():
    codes, groups = np.array([[[4, 4], [0, -1], [2, 4], [-1, -1]]]), ["cat", "dog", "cat", "emu"]
    rows = by_group(codes, groups)
    assert [(row["group"], row["images"], row["missing"]) for row in rows] == [
        ("cat", 2, 0),
        ("dog", 1, 1),
        ("emu", 1, 2),
    ]
    assert (
        rows[0]["correctness"] == (1.0, *wilson(1.0, 2))
        and rows[0]["specificity"][0] == pytest.approx(0.8)
        and np.isnan(rows[2]["hm"]).all()
    )
    assert message(by_group, codes, ["cat"]) == "there are 1 groups for 4 images: give one for each image"


def test_the_worst_are_bad_with_certainty():
    rows = by_group(
        np.array([0] * 2 + [4, 0] * 10 + [0] * 20 + [-1]), ["rare"] * 2 + ["middling"] * 20 + ["bad"] * 20 + ["unknown"]
    )
    assert [row["group"] for row in worst(rows)] == ["bad", "rare", "middling"] and len(worst(rows, n=1)) == 1
    assert message(worst, rows, "accuracy") == "unknown metric 'accuracy': use one of specificity, correctness, hm"


def test_paired_tests_show_themselves_in_a_notebook():
    html = paired_tests(np.zeros(5, int), np.full(5, 4), n_boot=10)._repr_html_()
    assert "5 images; drawn: images only; McNemar: p = 0.0625; Cohen's h: 3.142" in html
    assert "<th>correctness</th><td>+1.000</td><td>[+1.000, +1.000]</td>" in html
