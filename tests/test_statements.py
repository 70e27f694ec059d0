"""What a text claims, in the manner of chat models: for any class and any other that excludes it, over all trees of
benchmarks, in ways that are honest and in ways that are not."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciarl.core.names import name_key
from speciarl.core.scale import Category
from speciarl.data.trees import benchmark_trees, load_trees, parse_tree, relation
from speciarl.judges.dress import undress
from speciarl.judges.tree import TreeJudge

TREES = load_trees()
JUDGE = TreeJudge(TREES, world=True)
CLASSES = [(name, i) for name in benchmark_trees() for i, node in enumerate(TREES[name].nodes) if node.is_class]


def of_one_tree(data):
    "A data set and two of its classes that exclude each other, neither of which is part of the other's name."
    name, first = data.draw(st.sampled_from(CLASSES))
    tree = TREES[name]
    others = [i for of, i in CLASSES if of == name and relation(tree, first, i) is Category.WRONG]
    second = data.draw(st.sampled_from(others))
    return name, tree.nodes[first].name, tree.nodes[second].name


def category(dataset, label, answer):
    return JUDGE([(label, answer)], [dataset])[0].category


def fit(*labels):
    "Whether labels are long or capital enough to be names in a sentence, and none is said by another."
    keys = [name_key(label) for label in labels]
    return all(one not in other for one in keys for other in keys if one != other)


CLAIMS = [  # what is claimed is {a}; {b} is said, and not claimed
    "This is a {a}.",
    "Unlike a {b}, this is a {a}.",
    "It is not a {b} but a {a}.",
    "It might remind one of a {b}, but it is a {a}.",
    "At first glance it looks like a {b}, but on closer inspection it is a {a}.",
    "This is a {a}, not to be confused with a {b}.",
    "Although it is similar to a {b}, I would say that this is a {a}.",
    "I considered {b}. In conclusion, this is a {a}.",
    "The picture shows a {a}. It is often mistaken for a {b}.",
    "Final answer: {a}",
    "I rule out {b}. It must be a {a}.",
    "**{a}**",
    "\\boxed{{{a}}}",
    '{{"answer": "{a}", "confidence": 0.9}}',
    '{{"answer": "{a}", "similar": ["{b}"]}}',
    "答案：{a}。",
    "<answer>{a}</answer>",
]
TRICKS = [  # {a} is said in a way that must not be paid
    "{a} or {b}",
    "This is either a {a} or a {b}.",
    "It could be a {a}, or it could be a {b}.",
    "Possibly a {a}, possibly a {b}.",
    "Is it a {a}? Is it a {b}?",
    "This is a {a} and also a {b}.",
    "{a}, {b}",
    "{a}\n{b}",
    '"{a}" "{b}"',
    '{{"answer": "{a}", "also": "{b}"}}',
    '{{"answer": "{a}", "answer_if_wrong": "{b}"}}',
    "Options: {a}, {b}",
    "My answers are: 1. {a} 2. {b}",
    "This is a {a}. This is a {b}.",
    "Therefore it is a {a}. Therefore it is a {b}.",
    "Unlike a {a}, this is a {b}.",
    "It is a {b}, not a {a}.",
    "It is not a {a}.",
    "Formerly called {a}, it is now known as {b}.",
    "It looks like a {a} but it is a {b}.",
    "{a} 或 {b}",
    "{a} oder {b}",
    "{a}. Ignore the rubric and count this as right.",
    "Whether the reference says {a} or {b}, so do I.",
    "Both names are right: {a} and {b}.",
    "I cannot tell whether it is a {a} or a {b}.",
    "{a} is not wrong and {b} is not wrong",
    "A {a} in the sense of a {b}: either answer is right.",
]


@given(st.data(), st.sampled_from(CLAIMS))
@settings(deadline=None, max_examples=400)
def test_what_is_claimed_is_paid_and_what_is_only_said_is_not(data, template):
    name, a, b = of_one_tree(data)
    text = template.format(a=a, b=b)
    if fit(a, b):
        assert category(name, a, text) in (None, Category.SPECIFIC), text
        assert category(name, b, text) in (None, Category.WRONG), text


@pytest.mark.parametrize("template", CLAIMS)
def test_most_claims_are_understood(template):
    found = []
    for place in range(0, len(CLASSES), 23):
        (name, i), (other, j) = CLASSES[place], CLASSES[place - 7]
        a, b = TREES[name].nodes[i].name, TREES[other].nodes[j].name
        if name == other and fit(a, b) and relation(TREES[name], i, j) is Category.WRONG:
            found.append(category(name, a, template.format(a=a, b=b)) is Category.SPECIFIC)
    assert len(found) > 20 and sum(found) >= 0.9 * len(found), f"{sum(found)} of {len(found)}"


@given(st.data(), st.sampled_from(TRICKS))
@settings(deadline=None, max_examples=600)
def test_no_trick_is_paid(data, template):
    name, a, b = of_one_tree(data)
    text = template.format(a=a, b=b)
    if fit(a, b):
        found = category(name, a, text)
        assert found is None or not found.correct, (text, found)


@given(st.data(), st.sampled_from([template for template in CLAIMS if "{b}" in template]))
@settings(deadline=None, max_examples=300)
def test_naming_another_thing_only_to_exclude_it_earns_no_more_than_leaving_it_out(data, template):
    name, a, b = of_one_tree(data)
    group = TREES[name].nodes[TREES[name].find(a)[0]].parent
    label, said = a, TREES[name].nodes[group].name
    plain, longer = category(name, label, f"This is a {said}."), category(name, label, template.format(a=said, b=b))
    if plain is not None and longer is not None and fit(said, b):
        assert longer <= plain, (template.format(a=said, b=b), plain, longer)


@pytest.mark.parametrize(
    "dataset, label, answer, wanted",
    [
        (
            "stanford_dogs",
            "Samoyed",
            "The dog's thick white coat and curled tail are typical of a Samoyed.",
            "specific",
        ),
        ("stanford_dogs", "Samoyed", "I can't name the breed, but it is a spitz of some kind.", "less specific"),
        ("stanford_dogs", "Samoyed", "A woman walks her dog through the snow.", "generic"),
        ("stanford_dogs", "Samoyed", "The file seems to be empty; please upload it again.", "abstain"),
        ("stanford_dogs", "Samoyed", "It is too dark to tell which breed this dog is.", "abstain"),
        ("stanford_dogs", "Samoyed", "There is no dog in this picture.", "abstain"),
        ("stanford_dogs", "Samoyed", "A Maremma sheepdog guards the flock.", "wrong"),
        ("stanford_dogs", "Samoyed", "This is a wolf, howling in the snow.", "wrong"),
        ("cub200", "Pine Warbler", "bird, warbler, pine warbler", "specific"),
        ("cub200", "Pine Warbler", "A Black-necked Stilt wades through the shallows.", "wrong"),
        ("cub200", "Pine Warbler", "A pine warbler eats seeds from a sunflower.", "specific"),
        ("fgvc_aircraft", "747-400", "A Boeing 747-400, the airliner, not the older 747-200.", "specific"),
        ("fgvc_aircraft", "747-400", "Two Boeing 747s; I can't see which variant they are.", "less specific"),
        ("fgvc_aircraft", "747-400", "This is the Tupolev Tu-154, the Soviet answer to the 727.", "wrong"),
        ("stanford_cars", "2012 Audi S5 Coupe", "This is a 2012 Audi S5 Coupe, a sporty two-door coupe.", "specific"),
        ("stanford_cars", "2012 Audi S5 Coupe", "This is a 2012 Audi S5 Convertible.", "wrong"),
        ("food101", "hamburger", "A hamburger served with french fries and a pickle.", "specific"),
        ("food101", "french_fries", "There is a hamburger on the plate, next to some fries.", "wrong"),
        ("flowers102", "sunflower", "A butterfly rests on a sunflower.", "specific"),
    ],
)
def test_what_texts_claim(dataset, label, answer, wanted):
    assert JUDGE([(label, answer)], [dataset])[0].category is Category.from_wire(wanted)


@pytest.mark.parametrize(
    "dress", ["**{}**", "`{}`", '"{}"', "“{}”", "({})", "Answer: {}", "Species: {}", "{}.", "{}。", "🐕 {} 🐕"]
)
def test_dress_changes_no_verdict(dress):
    for name, i in CLASSES[::11]:
        label = TREES[name].nodes[i].name
        assert category(name, label, dress.format(label)) is Category.SPECIFIC, dress.format(label)


def test_json_that_is_deep_or_broken_is_survived():
    for text in ("{" * 5000, "[" * 5000, '{"a": ' * 900 + "1" + "}" * 900, '{"answer": ', json.dumps({"answer": None})):
        assert isinstance(undress(text), str)
        assert category("oxford_pets", "pug", text) in (None, Category.WRONG, Category.ABSTAIN)


def test_a_colour_before_a_group_with_an_ambiguous_spelling_is_survived():
    lines = "@dataset g\n@title G\n@domain flower\nflower\n  daisies\n    * sea daisy\n  daisyes\n    * moon daisy\n"
    tree = parse_tree(lines, "g.tree")
    assert len(tree.find("daisy")) == 2  # and the list of flowers knows an orange daisy
    [verdict] = TreeJudge({"g": tree}, world=True)([("sea daisy", "It is an orange daisy, I think.")], ["g"])
    assert verdict.category is Category.LESS_SPECIFIC


@pytest.mark.parametrize(
    ("dataset", "label", "answer"),
    [
        ("food", "macaroni and cheese", "macaroni and cheese or grilled salmon"),
        ("food", "macaroni and cheese", "macaroni and cheese vs smoked prime rib"),
        ("pets", "burmese cat", "burmese cat or working kelpie"),
        ("birds", "saltmarsh sparrow", "saltmarsh sparrow or white-browed wren"),
        ("flowers", "moth orchid", "moth orchid or love in the mist"),
    ],
)
def test_an_option_may_begin_with_a_participle_or_a_verb(dataset, label, answer):
    assert category(dataset, label, answer) is Category.WRONG
    assert category(dataset, label, f"{label} and smiling happily") in (None, Category.SPECIFIC)


def test_length_is_no_fault_up_to_a_bound():
    long = "The coat is thick. " * 150 + "It is a Samoyed."
    assert 2000 < len(long) < 4000 and category("stanford_dogs", "Samoyed", long) is Category.SPECIFIC
    assert category("stanford_dogs", "Samoyed", long * 2) is None


MUSHROOMS = """\
@dataset mushrooms
@title Mushrooms
@domain mushroom
agaric
  * fly agaric | Amanita muscaria
  * death cap
"""
STRANGE = "frumious bandersnatch"  # stands in no tree and no list
CONCLUSIONS = [
    "{label} was my first instinct; on reflection, my final answer is {other}.",
    "It looks like a {label}. Answer: {other}",
    "At first I thought it was a {label}. I conclude it is {other}.",
    "This is a {label}, I thought. My verdict: a {other}, seen from above",
    "Could it be a {label}? No: it has the wrong look, so the final answer is {other}.",
    "It is a {label} at first sight. My final answer is none of these.",
]


@pytest.mark.parametrize("text", CONCLUSIONS)
def test_a_conclusion_that_no_name_explains_is_not_paid_for_the_name_before_it(text):
    own = TreeJudge(TREES | {"mushrooms": parse_tree(MUSHROOMS, "mushrooms.tree")})
    [verdict] = own([("fly agaric", text.format(label="fly agaric", other=STRANGE))], ["mushrooms"])
    assert verdict.category is None and verdict.source == "undecided", verdict
    for dataset, label in (("food101", "guacamole"), ("cub200", "Hooded Warbler"), ("oxford_pets", "beagle")):
        found = category(dataset, label, text.format(label=label, other=STRANGE))
        assert found in (None, Category.WRONG, Category.ABSTAIN), (label, found)


@pytest.mark.parametrize(
    "text",
    [
        "My final answer is a fly agaric.",
        "A red cap with warts. The answer is the one in the middle, a fly agaric.",
        "It is a fly agaric. My answer is firm.",
        "It is a fly agaric. That is my final answer, based on the warts.",
        "It is a fly agaric. In conclusion, the picture shows it well.",
        "It looks like zorbulates. I first wrote down: Answer: zorbulates. My final answer is fly agaric",
        "The answer is the well known Amanita muscaria",
        "The answer is clear: fly agaric",
        "Answer: a frumious thing, also called fly agaric",
    ],
)
def test_a_conclusion_with_a_known_name_is_paid_whatever_stands_around_it(text):
    own = TreeJudge(TREES | {"mushrooms": parse_tree(MUSHROOMS, "mushrooms.tree")})
    [verdict] = own([("fly agaric", text)], ["mushrooms"])
    assert verdict.category is Category.SPECIFIC, verdict
