"The paper's sentences take their numbers from results: none is typed by hand."

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "paper" / "paper.md").read_text(encoding="utf-8")
NAMES = (
    "95 %",
    "Fine-R1",
    "Qwen2.5-VL",
    "CUB-200-2011",
    "Stanford-40",
    "Food-101",
    "Flowers-102",
    "Oxford-IIIT",
    "SHA-256",
    "EfficientNet-Lite0",
)  # numbers that belong to a name, and the level of all intervals


def plain(text: str) -> str:
    """The text as a reader sees it, but for what a run fills in: no header, code, formulas, placeholders, citations,
    links or sizes of pictures."""
    text = text.split("\n---\n", 1)[1] if text.startswith("---\n") else text
    for pattern in (
        r"```.*?```",
        r"`[^`]*`(\{=\w+\})?",
        r"\$(?:[^$\n\d]|(?<![\d.])\d(?![\d.]))+\$",  # a formula, whose numbers have one digit
        r"\{\{.*?\}\}",
        r"\[@[^\]]*\]",
        r"\]\([^)]*\)",
        r"\{#[^}]*\}",
        r"<!--.*?-->",
    ):
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    for name in NAMES:
        text = text.replace(name, " ")
    return text


def typed_numbers(text: str) -> list[str]:
    "Digits outside placeholders, with what stands around them."
    return [
        " ".join(text[max(0, found.start() - 25) : found.end() + 25].split())
        for found in re.finditer(r"\d[\d.,]*", text)
    ]


def test_no_number_is_typed_by_hand():
    assert typed_numbers(plain(TEXT)) == []


@pytest.mark.parametrize(
    "sentence, found",
    [
        ("S is {{benchmark.SFT.fine.S:.3f}} (95 % intervals).", []),
        ("S is 0.883 here.", ["S is 0.883 here."]),
        ("The base of 64 answers", ["The base of 64 answers"]),
        ("a Qwen2.5-VL with `x = 3`", []),
        ("caution earns $q(1-gp)^{N-1}$", []),
        ("guessing costs $5", ["guessing costs $5"]),
        ("S is $0.883$ here", ["S is $0.883$ here"]),
        ("$S = 64$", ["$S = 64$"]),
    ],
)
def test_the_search_finds_what_it_should(sentence, found):
    assert typed_numbers(plain(sentence)) == found


def test_the_header_has_none_either():
    header = TEXT.split("\n---\n", 1)[0]
    abstract = header.partition("abstract: |")[2].partition("\npapersize")[0]
    assert typed_numbers(plain(abstract)) == []


def test_verdicts_in_words_are_generated():
    """Whether something is above, below or not shown is said by the run, so the words that say it by hand do not
    occur next to a metric."""
    for word in ("significant", "outperform", "clearly better", "clearly worse", "beats"):
        assert word not in plain(TEXT), f"{word!r} in paper.md: let a notebook write the word from the interval"
