"""The cascade: the second judge gets what the first leaves and nothing else, and what that saves is counted."""

import math

import pytest
from judge_server import judge_server, judge_server_process, rule  # noqa: F401 - fixtures

from speciarl.core.scale import Category
from speciarl.data.trees import load_trees
from speciarl.judges.choose import CascadeJudge, JudgeSpec, is_left, make_judge
from speciarl.judges.llm import JudgeUnavailable, LLMJudge
from speciarl.judges.tree import TreeJudge
from speciarl.judges.verdict import Verdict
from speciarl.training.recipe import load_recipe

LEFT = {"?": Verdict(None, "undecided"), "#": Verdict(None, "trees disagree"), "!": Verdict(None, "unknown label")}


class First:
    "Decides all answers but those that begin with one of `LEFT`; remembers what it was asked."

    identity = "first"
    asked: list

    def __call__(self, pairs, datasets=None, done=None):
        self.asked = [list(pairs), datasets]
        return [LEFT.get(answer[:1], Verdict(Category.GENERIC, "first")) for _, answer in pairs]


class Second(First):
    identity = "second"

    def __call__(self, pairs, datasets=None, done=None):
        self.asked = [list(pairs), datasets]
        verdicts = [Verdict(Category.WRONG, "second", answer) for _, answer in pairs]
        for i in reversed(range(len(pairs))):  # one at a time, the last one first
            done and done([i], [verdicts[i]])
        return verdicts


PAIRS = [("x", "a"), ("x", "?b"), ("x", "!c"), ("y", "#d"), ("x", "?b"), ("x", "a")]


def test_only_what_the_first_leaves_is_passed_on():
    assert [
        is_left(v) for v in (*LEFT.values(), Verdict(Category.WRONG, "undecided"), Verdict(None, "llm failed"))
    ] == [True, True, False, False, False]
    first, second = First(), Second()
    verdicts = CascadeJudge(first, second)(PAIRS, list("123456"))
    assert first.asked == [PAIRS, list("123456")] and second.asked == [[PAIRS[1], PAIRS[3], PAIRS[4]], ["2", "4", "5"]]
    assert [v.source for v in verdicts] == ["first", "second", "unknown label", "second", "second", "first"]
    assert [v.reason for v in verdicts if v.source == "second"] == ["?b", "#d", "?b"]


def test_done_gets_every_verdict_under_its_place():
    seen = {}
    verdicts = CascadeJudge(First(), Second())(PAIRS, done=lambda at, found: seen.update(zip(at, found, strict=True)))
    assert seen == dict(enumerate(verdicts))


def test_nothing_left_asks_nobody():
    def nobody(*args, **kwargs):
        raise AssertionError("asked")

    cascade = CascadeJudge(First(), nobody)
    assert [v.source for v in cascade([("x", "a"), ("x", "!b")])] == ["first", "unknown label"] and cascade([]) == []
    assert cascade.calls_saved == 1.0


def test_counts_add_up_over_calls_and_count_distinct_pairs():
    cascade = CascadeJudge(First(), Second())
    assert math.isnan(cascade.calls_saved) and cascade.summary() == "no pairs were judged"
    cascade(PAIRS)
    cascade(PAIRS[:1])
    assert cascade.counts == {"pairs": 7, "passed on": 3, "distinct": 5, "distinct passed on": 2}
    assert cascade.summary() == "7 pairs, 5 distinct: 2 asked of the second judge, 60.0% of its calls saved"


def test_identity_and_description_are_made_of_both():
    cascade = CascadeJudge(First(), Second())
    assert cascade.identity == CascadeJudge(First(), Second()).identity != CascadeJudge(Second(), First()).identity
    assert cascade.description == {"judge": "cascade", "first": {"identity": "first"}, "second": {"identity": "second"}}


def test_with_an_llm_judge(judge_server):
    judge = LLMJudge("judge", judge_server.url, timeout=2.0)
    cascade = CascadeJudge(First(), judge)
    verdicts = cascade(PAIRS)
    assert [v.category for v in verdicts] == [
        2,
        Category.from_wire(rule("x", "?b")),
        None,
        Category.from_wire(rule("y", "#d")),
        Category.from_wire(rule("x", "?b")),
        2,
    ]
    assert judge_server.stats()["calls"] == 1 + cascade.counts["distinct passed on"] == 3  # one for the probe
    assert cascade.description["second"]["model"] == "judge"


SENTENCES = [
    "warbler",
    "This is a hooded warbler.",
    "It is an ovenbird.",
    "The hood and the yellow face leave little doubt: it is a gorpled mellowhood.",
    "A small thing that sings, known to farmers as the mellowhood",
    "a zorbulated thing on a branch",
    "I would say a frobbish quux, seen from below, in the last light of the day",
]


@pytest.mark.parametrize("prompt, calls", [("claim_single", 4), ("claim_batched", 1)])
def test_the_undecided_sentences_are_asked_and_only_these(judge_server, prompt, calls):
    trees = TreeJudge(load_trees(["cub200"]))
    pairs = [("Hooded Warbler", sentence) for sentence in SENTENCES]
    alone = trees(pairs, ["cub200"] * len(pairs))
    left = [pair for pair, verdict in zip(pairs, alone) if verdict.category is None]
    assert len(left) == 4 and {verdict.source for verdict in alone if verdict.category is None} == {"undecided"}
    cascade = make_judge(JudgeSpec("cascade", model="judge", url=judge_server.url, prompt=prompt), trees=trees.trees)
    verdicts = cascade([*pairs, *pairs], ["cub200"] * 2 * len(pairs))
    assert judge_server.stats()["pairs"] == {f"{label}|{answer}": 1 for label, answer in left}
    assert judge_server.stats()["calls"] == 1 + calls, "one for the probe"
    for pair, verdict, before in zip(pairs, verdicts, alone):
        assert verdict == (Verdict(Category.from_wire(rule(*pair)), "llm") if pair in left else before)
    assert verdicts[: len(pairs)] == verdicts[len(pairs) :]


def test_a_cascade_reads_answers_by_the_rules_of_the_trees_unless_told_otherwise(judge_server):
    spec = JudgeSpec("cascade", model="judge", url=judge_server.url)
    assert make_judge(spec).second.prompt.name == spec.prompt == "claim_single"
    assert load_recipe("paper/speciarl").judge_prompt == "base_single", "the release's protocol"


def test_what_the_first_decides_is_kept_when_the_second_is_gone(judge_server):
    judge_server.set(script=["", "500"])
    cascade, seen = (
        CascadeJudge(First(), LLMJudge("judge", judge_server.url, retries=0, give_up_after=1, concurrency=1)),
        {},
    )
    with pytest.raises(JudgeUnavailable):
        cascade(PAIRS, done=lambda at, found: seen.update(zip(at, found, strict=True)))
    assert sorted(seen) == [0, 1, 2, 4, 5]
