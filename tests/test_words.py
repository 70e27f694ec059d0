"The word lists of other real things: their files, their counts, and that they never speak against a tree."

import re
import unicodedata
from importlib.resources import files
from pathlib import Path

import pytest

from speciarl.core.names import name_key, singulars, spellings
from speciarl.core.scale import UserError
from speciarl.data.trees import available_trees, load_tree, parse_tree
from speciarl.data.words import (
    guarded_names,
    is_another,
    known_names,
    lists_of,
    other_things,
    read_entry,
    word_domains,
    word_entries,
)

WORDS = Path(str(files("speciarl") / "assets" / "words"))
LISTS = sorted(WORDS.glob("*.txt"))
# The least number of things in each list.
LEAST = {
    "aircraft": 2_000,
    "birds": 11_000,
    "cars": 3_000,
    "cats": 100,
    "dogs": 600,
    "flowers": 1_200,
    "food": 900,
}  # things
REAL = {
    "aircraft": "cessna 421, piper pa 44 seminole, f 22 raptor, mig 29, boeing 787 9 dreamliner, concorde",
    "cars": "renault clio, kia sportage, peugeot 206, subaru forester, skoda octavia, toyota land cruiser",
    "birds": "resplendent quetzal, pharomachrus mocinno, eurasian hoopoe, common loon, california condor",
    "cats": "toyger, lykoi, khao manee, somali cat, kurilian bobtail",
    "dogs": "shikoku, hokkaido, lagotto romagnolo, xoloitzcuintli, azawakh, labradoodle",
    "flowers": "lobelia, forsythia, cornflower, lavandula, trillium, indian paintbrush, kniphofia, erigeron",
    "food": "okonomiyaki, moussaka, feijoada, jollof rice, beef bourguignon, lamington, gado gado",
}
MADE_UP = (
    "sunset tailed quetzal",
    "greater plaid sparrow",
    "bavarian lap terrier",
    "cessna 9421",
    "boeing 797 800",
    "toyota zebrano",
    "golden moonpetal",
    "noodle a la kraken",
    "velvet pointed somali lynx cat",
)


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_every_line_is_well_formed(path):
    text = path.read_text("utf-8")
    assert text.endswith("\n") and "\r" not in text
    lines = text.splitlines()
    assert unicodedata.is_normalized("NFC", text)
    assert not [c for c in text.replace("\n", "") if unicodedata.category(c).startswith("C")]
    for line in lines:
        assert line == " ".join(line.split()) and re.fullmatch(r'[^<>\[\]*~@";_]+', line), line
    keys = [key for line in lines for key in read_entry(line).keys]
    assert len(keys) == len(set(keys)), sorted(key for key in set(keys) if keys.count(key) > 1)
    firsts = [read_entry(line).keys[0] for line in lines]
    assert firsts == sorted(firsts)


def test_the_lists_are_as_long_as_they_should_be_and_no_heavier():
    assert {path.stem for path in LISTS} == set(LEAST) == set(word_domains())
    assert {name: len(word_entries(name)) for name in LEAST if len(word_entries(name)) < LEAST[name]} == {}
    assert sum(path.stat().st_size for path in LISTS) < 700_000


def test_the_card_names_a_source_for_each_list():
    card = (WORDS / "README.md").read_text("utf-8")
    for path in LISTS:
        assert f"## {path.name}" in card
        things = f"{len(word_entries(path.stem)):,}"
        assert things in card, f"the card should say that {path.name} holds {things} things"


@pytest.mark.parametrize("domain", REAL)
def test_real_things_are_known_and_made_up_ones_are_not(domain):
    known = known_names(domain)
    assert [name for name in REAL[domain].split(", ") if name not in known] == []
    assert known.isdisjoint(MADE_UP) and guarded_names(domain).isdisjoint(MADE_UP)
    assert known.isdisjoint(guarded_names(domain))


def test_everyday_words_are_guarded():
    assert "ruff" in guarded_names("birds") and "boxer" in guarded_names("dogs")
    assert {"focus", "fit", "fusion"} <= guarded_names("cars") and "ford focus" in known_names("cars")
    for word in ("ruff", "rook", "boxer", "snowshoe", "focus", "fit", "stock", "honesty", "poke"):
        assert not any(word in known_names(domain) for domain in word_domains())


def test_no_broad_word_is_a_thing():
    broad = {"bird", "dog", "cat", "aircraft", "car", "plane", "food", "flower", "animal", "pet", "dish", "plant"}
    for domain in word_domains():
        assert broad.isdisjoint(known_names(domain) | guarded_names(domain))


def test_a_word_in_brackets_may_be_left_out_and_the_mark_guards_what_is_left():
    assert read_entry("(Ford) ?Focus | Ford C-Max") == (("ford focus", "focus", "ford c max"), {"focus"})
    assert read_entry("Jindo (dog)") == (("jindo dog", "jindo"), frozenset())
    for line in ("Ford | ", "??", "(Ford)", "Ford ?Focus", "Focus)"):
        with pytest.raises(UserError, match="unreadable name"):
            read_entry(line)


def test_an_unknown_list_is_an_error_that_names_the_lists():
    with pytest.raises(UserError, match="no word list 'fish': the lists are aircraft, birds, cars, "):
        known_names("fish")


def test_the_lists_of_a_tree_follow_from_its_domain():
    assert lists_of(load_tree("oxford_pets")) == lists_of(load_tree("pets")) == ("cats", "dogs")
    assert lists_of(load_tree("cub200")) == ("birds",) and lists_of(load_tree("stanford_dogs")) == ("dogs",)
    fish = parse_tree("@dataset fish\n@title Fish\n@domain fish\nfish\n  * cod\n", "fish.tree")
    assert lists_of(fish) == () and other_things(fish) == {}


@pytest.mark.parametrize("name", available_trees())
def test_the_lists_never_speak_against_a_name_of_the_tree(name):
    tree = load_tree(name)
    others = {**other_things(tree), **other_things(tree, guarded=True)}
    keys = {name_key(called) for node in tree.nodes for called in node.names}
    plurals = {name_key(called + ending) for node in tree.nodes for called in node.names for ending in ("s", "es")}
    singular = {form for key in keys for form in singulars(key)}
    assert keys.isdisjoint(others) and plurals.isdisjoint(others)
    assert not [form for form in singular if form in others and not others[form]]
    assert not [key for key in others if any(form in keys for form in spellings(key))]


@pytest.mark.parametrize("name", available_trees())
def test_part_of_a_label_is_never_another_thing_than_the_label(name):
    tree = load_tree(name)
    others = {**other_things(tree), **other_things(tree, guarded=True)}
    for label, node in enumerate(tree.nodes):
        for called in node.names:
            words = name_key(called).split()
            for start in range(len(words)):
                for stop in range(start + 1, len(words) + 1):
                    kin = others.get(" ".join(words[start:stop]))
                    assert kin is None or not is_another(tree, kin, label), (called, words[start:stop])


def test_kin_decides_label_by_label():
    tree = load_tree("stanford_dogs")
    others = other_things(tree)
    [collie], [samoyed] = tree.find("border collie"), tree.find("samoyed")
    assert others["shikoku"] == frozenset() and is_another(tree, frozenset(), samoyed)
    kin = frozenset({collie})
    assert is_another(tree, kin, samoyed) and not is_another(tree, kin, collie)
    assert not is_another(tree, kin, tree.find("dog")[0])
