"""The gold set and the attack set: their structure, not what a judge makes of them."""

import csv
import json
from collections import Counter, defaultdict
from hashlib import sha256
from pathlib import Path

import pytest

import speciarl
from speciarl.core.scale import WIRE_NAMES

GOLD = Path(speciarl.__file__).parent / "assets" / "gold"
HALVES = ("dev", "test")
COLUMNS = ["dataset", "label", "answer", "category", "accepted", "note"]
CLASSES = {
    "cub200": 45,
    "fgvc_aircraft": 45,
    "flowers102": 45,
    "food101": 45,
    "oxford_pets": 30,
    "stanford_cars": 45,
    "stanford_dogs": 45,
}
ATTACKS = json.loads((Path(__file__).parent / "data" / "attacks.json").read_text(encoding="utf-8"))


def read(half: str) -> list[dict[str, str]]:
    with open(GOLD / f"gold_{half}.csv", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        assert rows.fieldnames == COLUMNS
        return list(rows)


ROWS = {half: read(half) for half in HALVES}
PAIRS = [row for half in HALVES for row in ROWS[half]]


def is_dev(row: dict[str, str]) -> bool:
    return int(sha256(f"{row['dataset']}/{row['label']}".encode()).hexdigest(), 16) % 2 == 0


def spelling(text: str) -> str:
    return " ".join(text.casefold().replace("-", " ").split())


def test_gold_has_enough_pairs_and_classes():
    """At least 100 pairs of 45 classes (30 of pets) per data set, and both halves have every data set and category."""
    assert len(PAIRS) >= 720 and {row["dataset"] for row in PAIRS} == set(CLASSES)
    for dataset, classes in CLASSES.items():
        rows = [row for row in PAIRS if row["dataset"] == dataset]
        assert len(rows) >= 100 and len({row["label"] for row in rows}) >= classes
    for rows in ROWS.values():
        assert {(row["dataset"], row["category"]) for row in rows} == {
            (dataset, name) for dataset in CLASSES for name in WIRE_NAMES
        }


@pytest.mark.parametrize("half", HALVES)
def test_gold_is_split_by_class(half):
    """The half of a pair follows from its data set and label alone."""
    assert ROWS[half] and all(is_dev(row) == (half == "dev") for row in ROWS[half])


def test_gold_rows_are_well_formed():
    """Every field is there and trimmed, an answer is one line, categories and accepted alternatives are names of the
    scale."""
    for row in PAIRS:
        assert list(row) == COLUMNS and all(value == value.strip() for value in row.values())
        assert row["label"] and "_" not in row["label"] and row["answer"].isprintable() and row["answer"]
        accepted = row["accepted"].split(";") if row["accepted"] else []
        assert len({row["category"], *accepted}) == 1 + len(accepted) and {row["category"], *accepted} <= set(
            WIRE_NAMES
        )


def test_gold_has_no_duplicates():
    """One category per data set, label and answer, however the answer is capitalised; one spelling per label."""
    pairs = Counter((row["dataset"], row["label"], row["answer"].casefold()) for row in PAIRS)
    assert [pair for pair, count in pairs.items() if count > 1] == []
    spellings = defaultdict(set)
    for row in PAIRS:
        spellings[row["dataset"], spelling(row["label"])].add(row["label"])
    assert [found for found in spellings.values() if len(found) > 1] == []


def test_gold_card_states_the_counts():
    """The data card carries the counts of the files as they are."""
    card = (GOLD / "README.md").read_text(encoding="utf-8")
    for half in HALVES:
        count = Counter(row["category"] for row in ROWS[half])
        assert (
            f"| all | {half} | {len({(row['dataset'], row['label']) for row in ROWS[half]})} | {len(ROWS[half])} | "
            + " | ".join(
                str(count[name])
                for name in ("wrong", "abstain", "generic", "less specific", "specific", "more specific")
            )
            in card
        )
    assert f"{len(PAIRS):,} label/answer pairs" in card


def read_spoken() -> list[dict[str, str]]:
    with open(GOLD / "gold_spoken.csv", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        assert rows.fieldnames == [*COLUMNS, "half"]
        return list(rows)


def test_sentences_are_well_formed_and_in_two_halves():
    """At least 600 sentences and paragraphs over all data sets, with names of the scale; undecided may be accepted."""
    rows = read_spoken()
    assert len(rows) >= 600
    for half in HALVES:
        mine = [row for row in rows if row["half"] == half]
        assert {row["dataset"] for row in mine} == set(CLASSES) and len(mine) >= 200
        assert {row["category"] for row in mine} == set(WIRE_NAMES)
    for row in rows:
        accepted = row["accepted"].split(";") if row["accepted"] else []
        assert row["category"] in WIRE_NAMES and row["category"] not in accepted and row["half"] in HALVES
        assert set(accepted) <= {*WIRE_NAMES, "undecided"} and row["label"] and row["answer"]
    assert sum(row["note"].startswith("attack") for row in rows) >= 60


def test_attacks_are_many_and_spread():
    """At least 170 attacks of at least 15 kinds, at least 20 per data set, no two alike."""
    assert len(ATTACKS) >= 170 and len({attack["kind"] for attack in ATTACKS}) >= 15
    assert set(per := Counter(attack["dataset"] for attack in ATTACKS)) == set(CLASSES) and min(per.values()) >= 20
    assert len(
        {
            json.dumps([attack["dataset"], attack["label"], attack.get("answer"), attack.get("answer_repeat")])
            for attack in ATTACKS
        }
    ) == len(ATTACKS)


def test_attacks_are_well_formed():
    """An attack has an answer, or a text and how often to repeat it (about 100 kB or more)."""
    for attack in ATTACKS:
        assert set(attack) in ({"dataset", "label", "kind", "answer"}, {"dataset", "label", "kind", "answer_repeat"})
        if "answer" in attack:
            assert isinstance(attack["answer"], str) and len(attack["answer"]) < 20_000
        else:
            text, times = attack["answer_repeat"]
            assert isinstance(times, int) and len((text * times).encode()) >= 90_000
        assert attack["kind"].replace("_", "").islower()


def test_attacks_never_repeat_a_gold_pair_that_is_correct():
    """No attack is a pair the gold set calls correct, and none is its bare label."""
    correct = {
        (row["dataset"], row["label"], row["answer"].casefold())
        for row in PAIRS
        if row["category"] not in ("wrong", "abstain")
    }
    for attack in ATTACKS:
        answer = attack.get("answer", "").casefold()
        assert (attack["dataset"], attack["label"], answer) not in correct and spelling(answer) != spelling(
            attack["label"]
        )
