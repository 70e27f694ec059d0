"""The judge study: the gold set, agreement with it, and verdict tables that others publish. Holds the tree judge to
its result on the development half."""

import json
import math

import pytest
from refusal import message

from speciarl.core.scale import Category
from speciarl.judges.tree import TreeJudge
from speciarl.judges.verdict import Verdict, write_verdicts
from speciarl.metrics.agreement import (
    Gold,
    Spoken,
    against,
    ask_gold,
    disagreements,
    on_sentences,
    published_verdicts,
    read_gold,
    read_spoken,
    replayed,
)

DEVELOPMENT = read_gold("development")
TOY = [
    Gold("dogs", "samoyed", "samoyed", Category.SPECIFIC, (), ""),
    Gold("dogs", "samoyed", "spitz", Category.LESS_SPECIFIC, (Category.GENERIC,), ""),
    Gold("dogs", "pug", "cat", Category.WRONG, (), ""),
    Gold("dogs", "pug", "dog", Category.GENERIC, (), ""),
]


def test_the_tree_judge_holds_its_result_on_the_development_half():
    result = against(DEVELOPMENT, ask_gold(TreeJudge(), DEVELOPMENT))
    assert result.pairs == len(DEVELOPMENT) and result.kappa >= 0.95 and result.undecided <= 0.03
    assert result.low <= result.kappa <= result.high and result.counts.sum() == result.pairs


def test_it_holds_for_each_data_set_too():
    verdicts = ask_gold(TreeJudge(), DEVELOPMENT)
    for name in sorted({pair.dataset for pair in DEVELOPMENT}):
        here = [i for i, pair in enumerate(DEVELOPMENT) if pair.dataset == name]
        result = against([DEVELOPMENT[i] for i in here], [verdicts[i] for i in here])
        assert result.kappa >= 0.92 and result.undecided <= 0.05, name


def test_an_unknown_half_is_refused():
    assert message(read_gold, "dev") == "unknown half 'dev'; use one of development, held out"


def test_gold_pairs_have_levels_and_other_levels_as_alternatives():
    assert len({pair.dataset for pair in DEVELOPMENT}) == 7 and {pair.category for pair in DEVELOPMENT} == set(Category)
    assert all(isinstance(also, Category) and also != pair.category for pair in DEVELOPMENT for also in pair.accepted)


def test_agreement_counts_accepted_verdicts_and_leaves_missing_ones_out_of_kappa():
    verdicts = [
        Verdict(Category.SPECIFIC, "t"),
        Verdict(Category.GENERIC, "t"),
        Verdict(Category.WRONG, "t"),
        Verdict(None, "undecided"),
    ]
    result = against(TOY, verdicts)
    assert (result.pairs, result.kappa, result.undecided, result.equal) == (4, 1.0, 0.25, 0.75)
    assert disagreements(TOY, verdicts) == []
    worse = [*verdicts[:2], Verdict(Category.SPECIFIC, "t"), verdicts[3]]
    assert against(TOY, worse).kappa < 1 and disagreements(TOY, worse) == [(TOY[2], worse[2])]
    with pytest.raises(ValueError):
        against(TOY, verdicts[:2])


def pair(category, *accepted, note="", label="pug") -> Gold:
    return Gold("dogs", label, "It is ...", category, accepted, note)


def test_sentences_are_measured_in_four_shares():
    right, wrong, none = (Verdict(c, "t") for c in (Category.SPECIFIC, Category.WRONG, None))
    gold = [
        pair(Category.SPECIFIC),
        pair(Category.SPECIFIC),
        pair(Category.GENERIC, Category.WRONG),  # an expert could call it wrong, too
        pair(Category.LESS_SPECIFIC),
        pair(Category.WRONG, note="attack-json"),
        pair(Category.WRONG, note="attack-quote"),
        pair(Category.WRONG, Category.SPECIFIC, note="attack-quote"),  # and this right
        pair(Category.WRONG, note="list"),
    ]
    found = on_sentences(gold, [right, wrong, wrong, none, right, wrong, right, right])
    assert found == Spoken(8, 1 - 3 / 7, 1 / 8, 1 / 4, 3, 1)
    assert on_sentences(gold, [none] * 8)[2:] == (1, 0, 3, 0) and math.isnan(on_sentences(gold, [none] * 8).agreed)
    with pytest.raises(ValueError):
        on_sentences(gold, [right])


def test_the_halves_of_the_sentences():
    halves = [read_spoken("development"), read_spoken("held out")]
    assert sum(map(len, halves)) >= 600 and all(len({pair.dataset for pair in half}) == 7 for half in halves)
    assert any(pair.open for half in halves for pair in half), "undecided is accepted where a person would shrug"
    assert all(any(pair.note.startswith("attack") for pair in half) for half in halves)
    assert message(read_spoken, "dev") == "unknown half 'dev'; use one of development, held out"


def test_a_judge_is_asked_pair_by_pair_with_its_data_set():
    asked = []
    ask_gold(lambda pairs, datasets: asked.append((pairs, datasets)), TOY)
    assert asked == [([("samoyed", "samoyed"), ("samoyed", "spitz"), ("pug", "cat"), ("pug", "dog")], ["dogs"] * 4)]


def write(folder, card) -> None:
    write_verdicts(
        folder / "one.csv",
        [pair._asdict() | {"source": "llm", "reason": ""} for pair in TOY[:2]],
        ["dataset", "label", "answer"],
    )
    if card is not None:
        (folder / "one.card.json").write_text(card if isinstance(card, str) else json.dumps(card))


@pytest.mark.parametrize("card", [None, "not json", {}, {"judge": {}}, {"judge": {"model": ""}}, {"judge": "a model"}])
def test_a_table_without_a_card_that_names_a_model_is_refused(tmp_path, card):
    write(tmp_path, card)
    path = tmp_path / "one.csv"
    assert (
        message(published_verdicts, tmp_path)
        == f"{path} has no run card that names its model (one.card.json); make both with: speciarl judge PAIRS.csv "
        f"--judge llm --base-url URL --model NAME --out {path}"
    )


def test_published_verdicts_are_replayed_and_missing_ones_stay_missing(tmp_path):
    write(tmp_path, {"judge": {"model": "a model"}})
    [(name, (judge, verdicts))] = published_verdicts(tmp_path).items()
    assert name == "one" and judge == {"model": "a model"}
    assert [(v.category, v.source) for v in replayed(verdicts, TOY)] == [
        (Category.SPECIFIC, "llm"),
        (Category.LESS_SPECIFIC, "llm"),
        (None, "not judged"),
        (None, "not judged"),
    ]
    assert published_verdicts(tmp_path / "none") == {}
