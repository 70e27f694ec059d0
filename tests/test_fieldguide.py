"""The embedded data set: the same bytes everywhere, nothing hidden shows through, and bad requests are refused in
one line."""

import hashlib
import random

import numpy as np
import pytest

from speciarl.core.scale import UserError, extract_answer
from speciarl.data.fieldguide import (
    DOMAINS,
    HABITS,
    READABLE,
    Individual,
    World,
    all_words,
    caption,
    draw_plate,
    familiarity,
    groups,
    individuals,
    paint,
    plates,
)
from speciarl.data.trees import load_tree


def test_plates_have_the_same_bytes_on_every_machine():
    digest = hashlib.sha256(
        b"".join(sample.image.tobytes() for domain in DOMAINS for sample in plates(domain, "test", 8))
    )
    assert digest.hexdigest() == "d29c4b0774bba1beafc5f0aa61a94a3e42a5638b79b9475d42af799ae8ee2176"


def test_a_plate_does_not_depend_on_how_many_are_asked_for():
    few, more = plates("cars", "train", 3, seed=4), plates("cars", "train", 9, seed=4)
    assert [(s.id, s.label, s.image.tobytes()) for s in few] == [(s.id, s.label, s.image.tobytes()) for s in more[:3]]


def test_train_test_and_seeds_share_no_plate():
    pictures = [
        s.image.tobytes() for split in ("train", "test") for seed in (0, 1) for s in plates("birds", split, 50, seed)
    ]
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize("condition", [c for c, level in READABLE.items() if level != "class"])
def test_what_is_hidden_is_not_drawn(condition):
    "The same random stream and another class (or group, where that is hidden too) give the very same picture."

    def picture(group, k):
        return draw_plate(Individual("pets", group, k, k, condition), random.Random(1)).tobytes()

    assert picture(1, 2) == picture(1, 9)
    assert (picture(0, 2) == picture(1, 2)) == (READABLE[condition] == "domain")


def test_a_lookalike_is_drawn_like_the_sibling_and_labelled_as_itself():
    found = next(
        (s, i) for s, (i, _) in zip(plates("food", "test", 200), individuals("food", "test", 200)) if i.looks != i.k
    )
    sample, individual = found
    assert sample.label == groups("food")[individual.group].classes[individual.k]
    twin = Individual("food", individual.group, individual.looks, individual.looks, "clear")
    assert draw_plate(individual, random.Random(2)).tobytes() == draw_plate(twin, random.Random(2)).tobytes()


def test_clear_classes_of_a_group_differ_visibly():
    drawn = [paint("aircraft", 2, k) for k in range(25)]
    assert min(np.abs(a - b).max() for i, a in enumerate(drawn) for b in drawn[:i]) >= 100


@pytest.mark.parametrize("siblings", [2, 5, 8, 16, 25])
def test_siblings_are_a_parameter(siblings):
    assert all(len(group.classes) == siblings for domain in DOMAINS for group in groups(domain, siblings))
    assert {i.k for i, _ in individuals("birds", "train", 800, world=World(siblings=siblings))} == set(range(siblings))


def test_every_name_is_a_node_of_its_tree_at_the_right_place():
    for domain in DOMAINS:
        tree = load_tree(domain)
        for group in groups(domain, 25):
            for name in group.classes:
                (index,) = tree.find(name)
                assert tree.nodes[index].is_class and tree.nodes[tree.nodes[index].parent].name == group.name


def test_captions_follow_the_habits_and_the_contract():
    rng = random.Random(0)
    clear = Individual("birds", 0, 3, 3, "clear")
    texts = [caption(World(), clear, "general", rng) for _ in range(4000)]
    assert all(extract_answer(text) for text in texts)
    share = sum("exact name" in text for text in texts) / len(texts)
    assert abs(share - HABITS["general"][familiarity("birds", 0)][0]) < 0.03
    vocabulary = {word for text in all_words() for word in text.split()}
    assert {word for text in texts for word in text.split()} <= vocabulary


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: plates("fish", "test", 1),
            "unknown field guide domain 'fish': use one of birds, flowers, food, pets, cars, aircraft",
        ),
        (lambda: plates("birds", "val", 1), "unknown split 'val': use train, validation or test"),
        (lambda: groups("birds", 26), "siblings must be 2 to 25, not 26"),
    ],
)
def test_bad_requests(call, message):
    with pytest.raises(UserError, match="^" + message.replace("?", r"\?") + "$"):
        call()
