"""Whole outputs of a model in the column of answers: what is inside tags, a box or JSON is judged, by every judge, and
the table keeps what was written."""

import csv
import json
import logging

import pandas as pd
import pytest
from command_line import call, ok
from judge_server import judge_server, judge_server_process, rule  # noqa: F401 - fixtures

import speciarl
from speciarl.core.pairs import content, read_pairs

SAID = ["samoyed", "dog", "strangeling", "spitz"]
DRESSES = {
    "tags": "<think>White: a pug or a husky?</think> <answer>{}</answer>",
    "no answer tag": "<think>White: a pug or a husky?</think> {}",
    "other thought": "<thinking>a pug?</thinking>\n<Answer> {} </Answer>",
    "template": "a pug? </think> <answer>{}</answer>",
    "box": "It might be a pug. So: $\\boxed{{\\text{{{}}}}}$.",
    "json": '{{"thought": "a pug?", "answer": "{}"}}',
    "fenced": 'Here it is:\n```json\n{{"final_answer": "{}", "not": "a pug"}}\n```',
    "both": '<think>pug</think><answer>{{"answer": "\\\\boxed{{{}}}"}}</answer>',
}


def table(path, answers):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["label", "answer"], *(["samoyed", answer] for answer in answers)])
    return path


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("dress", DRESSES)
def test_what_is_inside_is_judged_and_the_table_keeps_the_text(tmp_path, dress):
    worn = [DRESSES[dress].format(said) for said in SAID]
    ok("judge", table(tmp_path / "plain.csv", SAID), "--out", tmp_path / "plain_v.csv", "--dataset", "oxford_pets")
    done = call("judge", table(tmp_path / "p.csv", worn), "--out", tmp_path / "v.csv", "--dataset", "oxford_pets")
    told = [line for line in done.stderr.splitlines() if "what is inside is judged" in line]
    assert done.exit_code == 0 and len(told) == 1 and "4 answers " in told[0] and "--as-is judges" in told[0]
    plain, found = rows(tmp_path / "plain_v.csv"), rows(tmp_path / "v.csv")
    assert [row["answer"] for row in found] == worn
    assert [{**row, "answer": ""} for row in found] == [{**row, "answer": ""} for row in plain], "reasons, too"
    assert told[0] in json.loads((tmp_path / "v.card.json").read_text())["notes"]


def test_a_language_model_sees_no_thought(tmp_path, judge_server):
    worn = [DRESSES["tags"].format(f"beast {i}") for i in range(6)]
    server = ("--judge", "llm", "--base-url", judge_server.url, "--model", "judge")
    ok("judge", table(tmp_path / "p.csv", worn), "--out", tmp_path / "v.csv", *server)
    ok("store", "export", tmp_path / "v.sqlite", tmp_path / "asked.jsonl")
    asked = [json.loads(line) for line in (tmp_path / "asked.jsonl").read_text().splitlines()[1:]]
    assert sorted(row["answer"] for row in asked) == [f"beast {i}" for i in range(6)]
    assert [row["category"] for row in rows(tmp_path / "v.csv")] == [rule("samoyed", f"beast {i}") for i in range(6)]


def test_where_nothing_is_inside_the_format_is_broken_whatever_an_empty_cell_means(tmp_path):
    answers = ["<think>It never ends", "<answer> </answer>", "<answer>samoyed", "\\boxed{}", ""]
    done = call("judge", table(tmp_path / "p.csv", answers), "--out", tmp_path / "v.csv", "--empty-answer", "abstain")
    assert "3 answers had tags, 1 answer had a box: what is inside is judged (4 with nothing inside" in done.stderr
    assert [row["source"] for row in rows(tmp_path / "v.csv")][:4] == ["format"] * 4
    assert rows(tmp_path / "v.csv")[4]["category"] == "abstain"


def test_texts_are_judged_as_they_stand_on_request(tmp_path, caplog):
    path = table(tmp_path / "p.csv", ["<think>It never ends", "samoyed"])
    done = call("judge", path, "--out", tmp_path / "v.csv", "--as-is")
    assert "inside" not in done.stderr and rows(tmp_path / "v.csv")[0]["source"] == "tree"
    assert json.loads((tmp_path / "v.card.json").read_text())["as_is"] is True
    frame = pd.read_csv(path)
    with caplog.at_level(logging.WARNING):
        assert list(speciarl.judge(frame, as_is=True)["source"]) == ["tree", "tree"] and not caplog.text
        judged = speciarl.judge(frame)
    assert list(judged["source"]) == ["format", "tree"] and list(judged["answer"]) == list(frame["answer"])
    assert "the table: 1 answer had tags: what is inside is judged (1 with nothing inside" in caplog.text


def test_words_for_nothing_are_found_inside(tmp_path):
    pairs = read_pairs([{"label": "pug", "answer": text} for text in ("<answer>N/A</answer>", '{"answer": null}')])
    assert [pair["answer"] for pair in pairs.texts] == ["None", "None"] and "('N/A', 'null': rows 1, 2)" in pairs.notes[
        1
    ]


@pytest.mark.parametrize(
    "text",
    ["a < b", '{"answer": ["a", "b"]}', '{"answer": "a", "prediction": "b"}', "boxed{a}", "{'a'}", "[[", "a" * 99],
)
def test_any_other_text_is_an_answer(text):
    assert content(text) == (text, "")


def test_a_json_array_of_objects_is_a_table(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps([{"label": "samoyed", "answer": "dog"}] * 2, indent=1))
    ok("judge", tmp_path / "p.json", "--out", tmp_path / "v.csv")
    assert [row["category"] for row in rows(tmp_path / "v.csv")] == ["generic"] * 2
