"""The packaged label trees: every class is there and spelt officially, the published split is kept, and the papers'
worked examples come out.

Class lists and splits are compared by hash: SHA-256 of the sorted official names (underscores as spaces), one per line;
for the split, of the sorted lines `class<TAB>seen|unseen`.
"""

import hashlib

import pytest

from speciarl.core.scale import Category
from speciarl.data.trees import available_trees, benchmark_trees, fieldguide_trees, load_tree, near_ancestors, relation

CLASSES = {
    "cub200": (200, "6b31d0f383c3bdb42a5c1a95d78658cd8c5d4b95a9cca30593477925f0642082"),
    "fgvc_aircraft": (100, "e1c9e72060e63d526dce032008262a95f573b02e802be7be42f0cb6ccd5b4217"),
    "flowers102": (102, "55b9fce68bd47ca65d71aca82e6ebe1afd33059455f0acfc174e216fa73732e5"),
    "food101": (101, "9c0eeb5a368baacb40650cccd4b8cbc4a735bfad22fddc8ba521a99d8892f690"),
    "oxford_pets": (37, "325452254a1c260ee446f90ad8daad78b2e19de260fdc906d2fa5caa68b7abd9"),
    "stanford_cars": (196, "931c3f3c43775ac9a29a278bd4376c6688fb84af599d4a8da0192d10457a6666"),
    "stanford_dogs": (120, "2c5e65ce1c49b95a593ca7e9cf7cac0ada7437a3c3c08413ed8f9e68b620dca5"),
}
SPLITS = {
    "cub200": (120, 80, "17db971c43b6666ec5c859ded63205b71491752682a53f8099b594b49180235d"),
    "fgvc_aircraft": (60, 40, "270032d1573e974b7b6cc2532d0e2078a46806a67e6a95b9dbfe32191032f22f"),
    "stanford_cars": (117, 79, "e183c14d9d59d30aeb67c449ddac08fc4d0c977fb12fb76ecdcdd1b7ffc1493b"),
    "stanford_dogs": (72, 48, "2cb7ef69122ea483486c9641a1b4a3e8da089bd8c9f3b574ee3732e887dc44c6"),
    "flowers102": (61, 41, "8d88feebea18936a96b9cdfb7287f022da82b4150a61ebb1a68932c01920f400"),
    "oxford_pets": (22, 15, "a895cbe8dbbbc515f249e0f152ae8e7bfe473eaf315f90f30bc21b6aedc45957"),
}
FIELDGUIDE = ["aircraft", "birds", "cars", "flowers", "food", "pets"]
benchmark = pytest.mark.parametrize("name", sorted(CLASSES))


def classes(tree) -> list[int]:
    return [i for i, node in enumerate(tree.nodes) if node.is_class]


def digest(lines) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def category(name: str, label: str, answer: str) -> Category:
    tree = load_tree(name)
    [i], [j] = tree.find(label), tree.find(answer)
    assert tree.nodes[i].is_class, label
    return relation(tree, i, j)


def test_seven_benchmarks_and_six_field_guide_trees_are_packaged():
    assert benchmark_trees() == sorted(CLASSES) and fieldguide_trees() == FIELDGUIDE
    assert available_trees() == sorted([*CLASSES, *FIELDGUIDE])


@benchmark
def test_classes_are_the_official_ones(name):
    tree = load_tree(name)
    names = [tree.nodes[i].name for i in classes(tree)]
    assert tree.dataset == name and (len(names), digest(names)) == CLASSES[name]


@benchmark
def test_the_split_is_the_published_one(name):
    tree = load_tree(name)
    splits = [tree.nodes[i].split for i in classes(tree)]
    if name not in SPLITS:
        assert set(splits) == {""}
        return
    lines = [f"{tree.nodes[i].name}\t{tree.nodes[i].split}" for i in classes(tree)]
    assert (splits.count("seen"), splits.count("unseen"), digest(lines)) == SPLITS[name]


def test_a_hundred_classes_have_children():
    parents = [tree.nodes[i].name for tree in map(load_tree, CLASSES) for i in classes(tree) if tree.children(i)]
    assert len(parents) >= 100


@benchmark
def test_every_class_has_a_less_specific_group_and_a_generic_one(name):
    tree = load_tree(name)
    assert tree.domain_node is not None, f"no line of {name} has the @domain word {tree.domain!r} among its names"
    for i in classes(tree):
        found = {relation(tree, i, j) for j in tree.ancestors(i)}
        assert found == {Category.LESS_SPECIFIC, Category.GENERIC}, tree.nodes[i].name
        assert any(not tree.nodes[j].technical for j in near_ancestors(tree, i)), tree.nodes[i].name


@benchmark
def test_facets_are_generic_and_classes_among_them_less_specific(name):
    tree = load_tree(name)
    for i in classes(tree):
        for j in tree.above(i) - set(tree.ancestors(i)):
            assert relation(tree, i, j) is (Category.LESS_SPECIFIC if tree.nodes[j].is_class else Category.GENERIC)


@pytest.mark.parametrize(
    "name, finer, broader",
    [
        ("food101", "filet mignon", "steak"),
        ("food101", "gyoza", "dumplings"),
        ("food101", "poutine", "french fries"),
        ("stanford_dogs", "Border Collie", "Collie"),
        ("stanford_dogs", "Yorkshire Terrier", "Toy Terrier"),
    ],
)
def test_a_class_that_is_a_kind_of_another(name, finer, broader):
    assert (
        category(name, finer, broader) is Category.LESS_SPECIFIC
        and category(name, broader, finer) is Category.MORE_SPECIFIC
    )


@pytest.mark.parametrize("name", FIELDGUIDE)
def test_every_field_guide_class_has_a_less_specific_group_and_a_generic_one(name):
    tree = load_tree(name)
    for i in classes(tree):
        assert {relation(tree, i, j) for j in tree.ancestors(i)} == {Category.LESS_SPECIFIC, Category.GENERIC}
        assert relation(tree, i, tree.parent(i)) is Category.LESS_SPECIFIC


@pytest.mark.parametrize(
    "name, label, answer, expected",
    [
        ("cub200", "Golden winged Warbler", "warbler", Category.LESS_SPECIFIC),
        ("cub200", "Golden winged Warbler", "Vermivora chrysoptera", Category.SPECIFIC),
        ("cub200", "Golden winged Warbler", "bird", Category.GENERIC),
        ("cub200", "Golden winged Warbler", "animal", Category.GENERIC),
        ("cub200", "Golden winged Warbler", "Blue winged Warbler", Category.WRONG),
        ("stanford_dogs", "Samoyed", "dog", Category.GENERIC),
        ("stanford_dogs", "Samoyed", "Pomeranian", Category.WRONG),
        ("oxford_pets", "samoyed", "dog", Category.GENERIC),
        ("oxford_pets", "siamese", "cat", Category.GENERIC),
        ("fgvc_aircraft", "707-320", "Boeing 707", Category.LESS_SPECIFIC),
        ("fgvc_aircraft", "707-320", "aircraft", Category.GENERIC),
        ("fgvc_aircraft", "757-200", "commercial airliner", Category.GENERIC),
        ("fgvc_aircraft", "757-200", "757-300", Category.WRONG),
        ("stanford_cars", "2012 BMW M3 Coupe", "car", Category.GENERIC),
        ("stanford_cars", "2012 BMW M3 Coupe", "BMW M3", Category.LESS_SPECIFIC),
        ("flowers102", "bearded iris", "iris", Category.LESS_SPECIFIC),
        ("flowers102", "bearded iris", "flower", Category.GENERIC),
        ("food101", "apple pie", "pie", Category.LESS_SPECIFIC),
        ("food101", "apple pie", "food", Category.GENERIC),
    ],
)
def test_worked_examples(name, label, answer, expected):
    assert category(name, label, answer) is expected
