"Fine-R1's protocols: no option order, no list of names and no substring wins; seen and unseen classes are told apart."

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusal import message

from speciarl.data.fieldguide import DOMAINS, plates
from speciarl.data.samples import Sample
from speciarl.data.trees import load_tree
from speciarl.fine_r1.closed import (
    CLOSED_PROMPT,
    RELEASED_WORDS,
    Question,
    choice,
    classes_of,
    closed,
    closed_prompt,
    distances,
    evaluate_closed,
    evaluate_open,
    includes_only,
    positions,
    questions,
    released_right,
    shown_names,
    split_of,
    summary,
)
from speciarl.fine_r1.cot import unknown_words
from speciarl.metrics.openworld import NotRun
from speciarl.policy.engines import TransformersEngine
from speciarl.policy.model import load_policy

BIRDS = plates("birds", "validation", 120)


def tagged(text: str) -> str:
    return f"<think> hm </think> <answer> {text} </answer>"


# Questions


def test_a_constant_place_wins_the_released_order_only():
    leaky, fair = questions(BIRDS, shuffle=False), questions(BIRDS)
    for place in range(4):
        share = closed(fair, [tagged(one.options[place]) for one in fair]).right().mean()
        assert 0.12 < share < 0.4
    assert closed(leaky, [tagged(one.options[0]) for one in leaky]).right().mean() == 1
    assert summary(closed(leaky, [""] * len(leaky)))[0]["constant"] == 1


def test_questions_are_the_same_in_every_run_and_each_depends_on_its_sample_only():
    assert questions(BIRDS[:9], seed=5) == questions(BIRDS, seed=5)[:9] != questions(BIRDS[:9], seed=6)
    assert questions(BIRDS[::-1])[::-1] == questions(BIRDS)


@pytest.mark.parametrize("dataset", [*DOMAINS, *RELEASED_WORDS])
def test_options_are_distinct_classes_and_siblings_come_first(dataset):
    labels = list(classes_of(dataset))[::7][:12]
    samples = [Sample(str(i), BIRDS[0].image, label, dataset) for i, label in enumerate(labels)]
    for distractors in ("sibling", "random"):
        for one in questions(samples, distractors=distractors):
            assert (
                len(set(one.options)) == 4
                and set(one.options) <= set(classes_of(dataset))
                and one.options[one.right] == one.sample.label
            )
    for one in questions(samples):
        near = distances(dataset, one.sample.label)
        taken = sorted(near[name] for name in one.options if name != one.sample.label)
        assert taken == sorted(near.values())[:3]


def test_a_ranking_of_ones_own_is_followed():
    order = {name: sorted(distances("birds", name)) for name in classes_of("birds")}
    for one in questions(BIRDS[:20], distractors=order):
        assert set(one.options) == {one.sample.label, *order[one.sample.label][:3]}
    assert "there are 0 other classes" in message(questions, BIRDS[:1], distractors={})


def test_what_cannot_be_asked_is_told():
    stranger = replace(BIRDS[0], label="arctic tern")
    assert (
        message(questions, [stranger])
        == "'arctic tern' is no class of birds, so there are no options to offer; correct the label or the data set"
    )
    assert (
        message(closed_prompt, questions(BIRDS[:1])[0], "Which one?")
        == "the prompt of a closed-world question must say {options} where the options go"
    )
    assert message(questions, BIRDS[:1], distractors="visual") == "unknown distractors 'visual': use sibling or random"
    nameless = replace(BIRDS[0], id="1.jpg", dataset=None)
    assert (
        message(questions, [nameless])
        == "1.jpg: images without a data set have no known classes beside their own; add a column dataset to labels.csv"
    )


# Answers


@pytest.mark.parametrize(
    "answer, option, why",
    [
        ("tern", 2, "chosen"),
        ("Arctic tern.", 1, "chosen"),
        ("It is an arctic tern", 1, "chosen"),
        ("terns", 2, "chosen"),
        ("gull, arctic tern, tern, skua", None, "several options"),
        ("tern or arctic tern", None, "several options"),
        ("bittern", None, "no option"),
        ("penguin", None, "no option"),
        ("", None, "no answer"),
    ],
)
def test_an_answer_names_one_option_or_none(answer, option, why):
    options = ("gull", "arctic tern", "tern", "skua")
    assert choice(tagged(answer), options) == (option, why)
    assert choice(answer, options) == (None, "no answer"), "outside the tag nothing counts"


def test_the_released_rule_is_won_by_lists_and_by_longer_names():
    assert (
        released_right("tern", tagged("arctic tern"))
        and released_right("tern", tagged("gull, tern, skua"))
        and released_right("tern", "<answer>gull</answer><answer>tern</answer>")
    )
    assert not released_right("tern", "tern") and not released_right("tern", None)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from(["tern", "arctic tern", "gull", "great black-backed gull", "F/A-18", "737-200", "737-300"]),
        min_size=2,
        max_size=5,
        unique=True,
    ),
    st.data(),
)
def test_every_option_can_be_chosen_and_two_never(options, data):
    i, j = data.draw(st.permutations(range(len(options))))[:2]
    assert (
        choice(tagged(options[i]), options).option == i
        and choice(tagged(f"This is a {options[i].upper()}!"), options).option == i
    )
    assert choice(tagged(f"{options[i]}, {options[j]}"), options).why == "several options"


# Figures


def test_the_summary_counts_every_reason_and_leaves_out_what_never_came():
    asked = questions(BIRDS[:40])
    texts = (
        [tagged(one.options[one.right]) for one in asked[:20]]
        + [""] * 5
        + [tagged(", ".join(one.options)) for one in asked[25:30]]
        + [tagged("penguin")] * 5
        + [None] * 5
    )
    rows = {row["classes"]: row for row in summary(closed(asked, texts))}
    whole = rows["all"]
    assert (
        whole["n"],
        whole["no answer"],
        whole["several options"],
        whole["no option"],
        whole["no reply"],
        whole["chance"],
    ) == (40, 5, 5, 5, 5, 0.25)
    assert (
        whole["accuracy"].value == 20 / 35
        and whole["accuracy"].n == 35
        and whole["accuracy"].low < 20 / 35 < whole["accuracy"].high
    )
    assert whole["released"] == 25 / 40, "lists count there"
    assert rows["seen"]["n"] + rows["unseen"]["n"] == 40
    assert Counter(split_of(one.sample) for one in asked) == {"seen": rows["seen"]["n"], "unseen": rows["unseen"]["n"]}


def test_position_bias_is_seen():
    asked = questions(BIRDS)
    table = positions(closed(asked, [tagged(one.options[1]) for one in asked]))
    assert [row["chosen"] for row in table] == [0, 1, 0, 0] and [row["accuracy"].value for row in table] == [0, 1, 0, 0]
    assert sum(row["right"] for row in table) == pytest.approx(1)
    silent = positions(closed(asked, [""] * len(asked)))
    assert all(math.isnan(row["chosen"]) for row in silent)


# Asking


class Reads:
    "An engine that answers with the third word of the question's options, and fails on the fifth sample."

    together, batch, limit = False, None, None

    def ask(self, samples, prompt, how):
        for place, (turn,) in enumerate(prompt):
            yield place, RuntimeError("gone") if place == 4 else [tagged(turn.split(", ")[2])]


def test_every_question_is_asked_with_its_own_options():
    asked = questions(BIRDS[:8])
    result = evaluate_closed(Reads(), BIRDS[:8])
    assert result.questions == asked and [one.option for one in result.choices] == [1, 1, 1, 1, None, 1, 1, 1]
    assert summary(result)[0]["no reply"] == 1 and len(result.right()) == 7
    assert result.rows()[0]["options"] == list(asked[0].options) and result.rows()[4]["why"] == "no reply"


def test_the_small_policy_knows_the_words_and_batches_do_not_matter():
    policy = load_policy("fieldguide-base")
    for domain in DOMAINS:
        assert (
            unknown_words(
                policy.processor.tokenizer, [closed_prompt(one) for one in questions(plates(domain, "test", 20))]
            )
            == []
        )
    one, many = (
        evaluate_closed(policy, BIRDS[:4], max_tokens=16, batch=1),
        evaluate_closed(TransformersEngine(policy), BIRDS[:4], max_tokens=16, batch=4),
    )
    assert one == many and CLOSED_PROMPT.count("{options}") == 1


# The open world


def test_reciting_names_includes_nothing():
    names = ", ".join(shown_names("cub200"))
    label = next(iter(classes_of("cub200")))
    assert includes_only(label, f"this is a {label}", "cub200") and not includes_only(label, names, "cub200")


def test_cars_lose_body_and_year_and_no_other_data_set_does():
    label = next(iter(classes_of("stanford_cars")))
    short = label.rsplit(" ", 2)[0]
    assert includes_only(label, short, "stanford_cars")
    assert not includes_only("ford mustang gt", "ford", "cars")


class Same:
    "An encoder for which texts are alike if they are equal, and half alike if not."

    def encode(self, texts):
        places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        vectors = np.eye(len(places))[[places[text] for text in texts]] + 1 / math.sqrt(len(places)) * (
            math.sqrt(2) / 2
        )
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_open_scores_have_the_right_domain_word_and_say_what_was_not_run():
    outputs = [tagged(sample.label) for sample in BIRDS[:20]]
    rows = {(row.classes, row.metric): row for row in evaluate_open(BIRDS[:20], outputs)}
    assert set(rows) == {
        (classes, metric)
        for classes in ("all", "seen", "unseen")
        for metric in ("text inclusion", "relative similarity")
    }
    assert rows["all", "text inclusion"].ours.value == rows["all", "text inclusion"].released.value == 1
    assert str(rows["all", "relative similarity"].ours) == "not run: no encoder was given"
    scored = {(row.classes, row.metric): row for row in evaluate_open(BIRDS[:20], outputs, Same())}
    assert scored["all", "relative similarity"].ours.value == pytest.approx(1)
    assert scored["all", "relative similarity"].released == NotRun("birds is not in the release")
    label = next(iter(classes_of("cub200")))
    cub = [Sample("1", BIRDS[0].image, label, "cub200")]
    vague = SimpleNamespace(
        encode=lambda texts: np.array(
            [
                [1.0, 0.0] if text == label else [0.6, 0.8] if text == load_tree("cub200").domain else [0.0, 1.0]
                for text in texts
            ]
        )
    )
    (found,) = [
        row
        for row in evaluate_open(cub, [tagged("bird")], vague)
        if (row.classes, row.metric) == ("all", "relative similarity")
    ]
    assert (found.released.value, found.ours.value) == (pytest.approx(0.6), 0), (
        "over 'object' the domain word earns something, over itself nothing"
    )
    assert (
        message(evaluate_open, BIRDS[:2], [""]) == "there are 2 samples and 1 outputs; give one output for each sample"
    )


def test_a_question_knows_its_right_option():
    assert Question(BIRDS[0], ("a", BIRDS[0].label, "b")).right == 1
