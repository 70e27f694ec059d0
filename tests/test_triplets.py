"""Triplets: every anchor has a positive of its class and a negative of the most confusable other one, of its own
size; what cannot have them is refused in one line."""

import random

import numpy as np
import pytest
from PIL import Image
from refusal import message

from speciarl.data.samples import Sample
from speciarl.data.trees import load_tree
from speciarl.fine_r1.triplets import (
    Triplet,
    by_class,
    check_classes,
    class_means,
    confusable,
    kept_triplets,
    make_triplets,
    most_similar,
    nearest_in_tree,
    picture_vectors,
    same_size,
    steps_between,
    triplet_opener,
)
from speciarl.policy.model import load_policy

LABELS = ("hooded warbler", "pine warbler", "song sparrow", "fox sparrow")
COLOURS = dict(zip(LABELS, ("gold", "goldenrod", "sienna", "peru")))


def samples(labels=LABELS, each=3, dataset="birds") -> list[Sample]:
    return [
        Sample(
            f"{dataset}/{label}/{i}", Image.new("RGB", (56, 56), COLOURS.get(label, "navy")), label, dataset, "train"
        )
        for i in range(each)
        for label in labels
    ]


def vectors(some) -> np.ndarray:
    "The mean colour of each picture, and a little noise that hangs on its name: a vision tower for tests."
    rows = [
        np.asarray(sample.image, float).mean((0, 1)) + [random.Random(f"{sample.id}{i}").random() for i in range(3)]
        for sample in some
    ]
    return np.array(rows)


@pytest.mark.parametrize("negatives", ["sibling", "visual"])
def test_every_anchor_has_another_image_of_its_class_and_one_of_the_nearest_other(negatives):
    some = samples()
    triplets, find = make_triplets(some, True, negatives, 0, vectors(some)), {sample.id: sample for sample in some}
    assert list(triplets) == [sample.id for sample in some]
    partner = dict(zip(LABELS, (LABELS[1], LABELS[0], LABELS[3], LABELS[2])))
    for anchor in some:
        positive, negative = (find[name] for name in triplets[anchor.id])
        assert positive.id != anchor.id and positive.label == anchor.label and negative.label == partner[anchor.label]


def test_the_same_seed_gives_the_same_triplets_and_another_seed_others():
    some = samples(each=6)
    assert (
        make_triplets(some, negatives="sibling")
        == make_triplets(some, negatives="sibling")
        != make_triplets(some, negatives="sibling", seed=1)
    )


def test_all_siblings_are_drawn_where_several_are_as_near():
    some = samples(("hooded warbler", "pine warbler", "palm warbler", "ovenbird"), each=8)
    drawn = {
        (name.split("/")[1], triplet.negative.split("/")[1])
        for name, triplet in make_triplets(some, False, "sibling").items()
    }
    assert len(drawn) == 4 * 3, "each of the other three warblers for each warbler"


def test_what_is_not_asked_for_is_none():
    assert set(make_triplets(samples(), False, "none").values()) == {Triplet(None, None)}
    assert make_triplets(samples(each=1), False, "sibling")["birds/song sparrow/0"] == Triplet(
        None, "birds/fox sparrow/0"
    )


def test_negatives_stay_within_their_data_set():
    some = [*samples(LABELS[:2]), *samples(("rose", "tulip"), dataset=None)]
    near = confusable(some, "visual", vectors(some))
    assert near == {
        ("birds", "hooded warbler"): [("birds", "pine warbler")],
        ("birds", "pine warbler"): [("birds", "hooded warbler")],
        (None, "rose"): [(None, "tulip")],
        (None, "tulip"): [(None, "rose")],
    }


# -- what cannot be a triplet


def test_a_class_with_one_image_has_no_positive():
    some = [*samples(LABELS[:2]), *samples(LABELS[2:3], each=1)]
    expected = (
        "1 of 3 classes have one image only, and so no positive: 'song sparrow'; take more images of each "
        "class (shots), or set positives=false"
    )
    assert message(make_triplets, some, True, "sibling") == message(check_classes, some) == expected
    check_classes(some, positives=False)


@pytest.mark.parametrize("dataset, named", [("birds", "birds"), (None, "the training set")])
def test_a_domain_with_one_class_has_no_negative(dataset, named):
    some = samples(LABELS[:1], dataset=dataset)
    expected = (
        f"the images of {named} are all of one class, so none can be a negative; take images of more classes, "
        "or set negatives=none"
    )
    assert message(make_triplets, some, True, "visual", 0, vectors(some)) == expected
    assert make_triplets(some, True, "none")[f"{dataset}/hooded warbler/0"].negative is None


def test_one_class_in_one_of_two_domains_is_named():
    assert "the images of flowers are all of one class" in message(
        check_classes, [*samples(), *samples(("rose",), dataset="flowers")]
    )


def test_a_label_that_the_tree_does_not_have():
    assert (
        message(make_triplets, samples(("hooded warbler", "dodo")), True, "sibling")
        == "the label tree of birds has no 'dodo': correct the label, or set negatives=visual"
    )


# -- confusable


def test_what_a_kind_of_negatives_needs_is_told():
    assert (
        message(make_triplets, samples(), True, "visual")
        == "negatives=visual needs the vectors of the samples: see picture_vectors"
    )
    assert (
        message(make_triplets, samples(dataset=None), True, "sibling")
        == "images without a data set have no label tree: name their data set, or set negatives=visual"
    )
    some = samples(dataset=None)
    assert len(make_triplets(some, True, "visual", 0, vectors(some))) == len(some)


def test_steps_go_up_to_the_common_ancestor_and_down():
    tree = load_tree("birds")
    (a,), (b,), (c,), (d,) = (
        tree.find(name) for name in ("hooded warbler", "pine warbler", "song sparrow", "herring gull")
    )
    assert [steps_between(tree, a, other) for other in (a, b, c, d)] == [0, 2, 4, 6] and steps_between(tree, d, a) == 6
    assert nearest_in_tree(tree, ["hooded warbler", "song sparrow", "herring gull"])["herring gull"] == [
        "hooded warbler",
        "song sparrow",
    ]


def test_what_all_classes_share_does_not_count():
    "Next to a large common part the small differences decide, as they should."
    rng = np.random.default_rng(0)
    own = {"a": [1, 0, 0.0], "b": [0.9, 0.2, 0], "c": [-1, 0, 0.1], "d": [-1, 0.1, 0]}
    rows = np.array([[100.0, *own[name]] + rng.normal(0, 1e-3, 4) for name in own for _ in range(5)])
    labels = [name for name in own for _ in range(5)]
    assert most_similar(class_means(rows, labels)) == {"a": "b", "b": "a", "c": "d", "d": "c"}


def test_the_vision_tower_gives_every_picture_its_vector():
    policy = load_policy("fieldguide-base", device="cpu")
    images = [Image.new("RGB", (56, 56), colour) for colour in ("gold", "navy", "gold")] + [
        Image.new("RGB", (56, 112), "gold")
    ]
    found = picture_vectors(policy, images, size=3)
    assert (
        found.shape == (4, 128)
        and found.dtype == np.float64
        and np.array_equal(found[0], found[2])
        and not np.allclose(found[0], found[1])
    )
    assert np.allclose(found[1:2], picture_vectors(policy, images[1:2]), atol=1e-5)


# -- sizes, keeping


def test_pictures_of_other_sizes_take_the_size_of_the_anchor():
    pictures = {
        "square": Image.new("RGB", (56, 56)),
        "wide": Image.new("RGB", (280, 84), "gold"),
        "tall": Image.new("RGB", (30, 300)),
    }
    opener = triplet_opener(pictures.__getitem__)
    assert [opener((name, "wide")).size for name in pictures] == [(280, 84)] * 3 and opener("tall") is pictures["tall"]
    assert (
        same_size(pictures["wide"], pictures["square"]).getpixel((9, 9)) == (255, 215, 0)
        and opener(("wide", "wide")) is pictures["wide"]
    )


def test_triplets_are_made_once_for_a_set_of_images(tmp_path):
    path, some, made = tmp_path / "triplets.json", samples(), []

    def make():
        made.append(1)
        return make_triplets(some, negatives="sibling", seed=len(made))

    first = kept_triplets(path, some, make)
    assert kept_triplets(path, some, make) == first and made == [1], "the second time from the file"
    some = some[:-1]
    assert kept_triplets(path, some, make).keys() == {sample.id for sample in some} and len(made) == 2, (
        "other images, other triplets"
    )
    assert by_class(some)["birds", "fox sparrow"] == [sample for sample in some if sample.label == "fox sparrow"]
