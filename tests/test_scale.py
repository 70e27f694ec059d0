"Where the answer stands in what a model wrote: the last well-formed tag after the thought, in every form of it."

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from speciarl.core.scale import extract_answer, without_thoughts
from speciarl.data.samples import Sample
from speciarl.fine_r1.closed import choice
from speciarl.judges.tree import TreeJudge
from speciarl.policy.predict import prediction
from speciarl.training.reward import judge_texts


def released(text):
    "As the releases take it."
    found = re.search(r"<answer>(.*?)</answer>", text, re.DOTALL)
    return found[1].strip() if found else None


@pytest.mark.parametrize(
    "text, answer",
    [
        ("<think> a </think> <answer> pug </answer>", "pug"),
        ("<answer>pug</answer>", "pug"),
        ("<answer>\na\npug\n</answer>", "a\npug"),
        ("It is a pug.", None),
        ("", None),
        # mentioned in the thought
        ("<think> into <answer>label</answer> goes pug </think> <answer>pug</answer>", "pug"),
        ("<think> into <answer>label</answer> goes pug </think> pug", None),
        ("<think> the tag is <answer> </think> <answer>pug</answer>", "pug"),
        ("<think> the tags end with </answer> </think> <answer>pug</answer>", "pug"),
        ("into <answer>label</answer> goes pug </think> <answer>pug</answer>", "pug"),  # the prompt opened the thought
        ("<think> I close with </think> then <answer>label</answer>. </think> <answer>pug</answer>", "pug"),
        ("<think>a</think> <think>no, <answer>boxer</answer>?</think> <answer>pug</answer>", "pug"),
        ("<think> first <think> second </think> third <answer>boxer</answer> </think> <answer>pug</answer>", "pug"),
        ("<answer>pug</answer> <think> was it <answer>boxer</answer>? </think>", "pug"),
        ("<answer>pug</answer> </think>", None),  # all of it was thought
        ("<answer>pug <think> or a boxer </think></answer>", "pug"),
        # a thought that never ends
        ("<think> into <answer>label</answer> goes", None),
        ("<think> a pug <answer>pug</answer>", None),
        ("<answer>pug</answer> <think> or was it <answer>boxer</answer>", "pug"),
        # capitals and spaces
        ("<Answer>Pug</ANSWER>", "Pug"),
        ("<THINK> <answer>boxer</answer> </Think> <answer>pug</answer>", "pug"),
        ("< answer >pug</ answer >", None),
        ("<answers>pug</answers>", None),
        # repeated
        ("<answer>boxer</answer> <answer>pug</answer>", "pug"),
        ("<answer>pug</answer> <answer></answer>", ""),
        # nested
        ("<answer><answer>pug</answer></answer>", "pug"),
        ("<answer>a boxer? <answer>pug</answer> No!</answer>", "pug"),
        ("<answer>boxer</answer> <answer>or <answer>pug</answer>", "pug"),
        # never closed, never opened
        ("<answer>pug", None),
        ("<answer>pug</answer> <answer>box", "pug"),
        ("pug</answer>", None),
        ("<answer>pug</answer> boxer</answer>", "pug"),
        # after it, and nothing in it
        ("<answer>pug</answer> I am sure it is no boxer.", "pug"),
        ("<answer></answer>", ""),
        ("<answer> \n </answer>", ""),
    ],
)
def test_the_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text, answer",
    [
        (" It is a pug.\n", "It is a pug."),
        ("<think> a boxer? </think> It is a pug.", "It is a pug."),
        ("a boxer? </think> It is a pug.", "It is a pug."),
        ("It is a pug. <think> or", "It is a pug."),
        ("<think> a boxer", ""),
        ("<answer>pug</answer>", "<answer>pug</answer>"),
    ],
)
def test_without_a_tag_the_answer_is_all_but_the_thought(text, answer):
    assert extract_answer(text, None) == answer


def test_other_tags_follow_the_same_rule():
    text = "<conclusion>boxer</conclusion> <CONCLUSION>pug</CONCLUSION> <answer>cat</answer>"
    assert extract_answer(text, "CONCLUSION") == "pug"


WORDS = st.lists(
    st.sampled_from(["a", "pug", "boxer", "\n", "<", ">", "</", "<b>", "answer", "think", "no"]), max_size=6
)


@given(WORDS.map(" ".join), WORDS.map(" ".join), WORDS.map(" ".join), st.booleans())
@example("", "pug", "", True)
def test_what_is_well_formed_is_read_as_the_releases_read_it(thought, answer, after, thinks):
    text = f"<think> {thought} </think> " * thinks + f"<answer> {answer} </answer> {after}"
    assert extract_answer(text) == released(text) == answer.strip()


PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "pug", " ", "<Answer>"]), max_size=12
)


@given(PIECES.map("".join))
def test_nothing_of_a_thought_and_no_tag_is_ever_in_an_answer(text):
    answer, rest = extract_answer(text), without_thoughts(text)
    assert "think>" not in rest and (answer is None or (answer in rest and "answer>" not in answer.lower()))
    assert (extract_answer(rest), without_thoughts(rest)) == (answer, rest)


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<answer>", "</answer>", "<answer><think>", "<"])
def test_a_text_of_nothing_but_tags_takes_no_time(piece):
    start = time.perf_counter()
    extract_answer(piece * 100_000)
    assert time.perf_counter() - start < 5


def test_training_predictions_and_closed_questions_take_the_same_answer():
    sample = Sample("a.png", "a.png", "pug", "stanford_dogs")
    text = "<think> goes into <answer>boxer</answer> </think> <answer>no</answer> <answer>pug</answer>"
    [judged] = judge_texts(TreeJudge(), [text], ["pug"], ["stanford_dogs"])
    assert judged.answer == prediction(sample, "general", 0, text)["answer"] == "pug"
    assert choice(text, ["boxer", "pug"]).option == 1
