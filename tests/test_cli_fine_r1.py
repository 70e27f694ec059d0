"Fine-R1 on the command line: rationales from marks and teachers, training on them, and questions with options."

import csv
import hashlib
import json
import os
from functools import partial
from pathlib import Path

import policy_server as server
import pytest
import torch
from command_line import call, ok, refused
from PIL import Image
from policy_server import policy_server  # noqa: F401 - a fixture

from speciarl.data.samples import Sample
from speciarl.data.sets import read_data
from speciarl.fine_r1.closed import classes_of, closed_prompt, questions, split_of
from speciarl.fine_r1.closed_run import plain_rows
from speciarl.fine_r1.rationales import Teacher, plate_rationales, read_rationales
from speciarl.fine_r1.teaching import of_classes
from speciarl.metrics.openworld import Mean
from speciarl.policy.server import ServerEngine
from speciarl.training.recipe import load_recipe
from speciarl.training.settings import training_samples

SHORT = [
    "--set",
    "steps=1",
    "--set",
    "prompts_per_step=2",
    "--set",
    "micro_batch=2",
    "--set",
    "warmup_steps=0",
    "--set",
    "shots=1",
    "--set",
    "data={birds: 30}",
]
LABELS = (*(name for name in classes_of("birds") if name != "ovenbird"),)[:3] + ("ovenbird",)


def listing() -> list[str]:
    return sorted(path.as_posix() for path in Path().rglob("*"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    return tmp_path


@pytest.fixture
def photos(folder):
    "Eight pictures of four classes of birds."
    Path("photos").mkdir()
    rows = []
    for i in range(8):
        Image.new("RGB", (30, 30), (40 * i % 256, 20 * i, 9)).save(f"photos/{i}.png")
        rows.append(f"{i}.png,{LABELS[i % 4]},birds\n")
    Path("photos/labels.csv").write_text("file,label,dataset\n" + "".join(rows))
    return "photos"


@pytest.fixture
def teacher(policy_server, monkeypatch):
    """A server that writes a rationale that ends in the label it was told; asked about an ovenbird, it decides on
    something else."""

    def write(image, prompt, seed, n=1):
        label = prompt.split("The image shows: ")[1].split(". Explain")[0]
        said = "gull" if label == "ovenbird" else label
        return [
            json.dumps(
                dict(
                    analysis="white", candidates=[label, "gull"], comparison="a gull is not like that", prediction=said
                )
            )
        ]

    monkeypatch.setattr(server, "expected", write)
    monkeypatch.setattr(server, "FIELDS", server.FIELDS | {"response_format"})
    monkeypatch.setattr(
        "speciarl.fine_r1.rationales.Teacher", partial(Teacher, retries=0, give_up_after=2, concurrency=1)
    )
    return policy_server


def asks(handle, *more):
    return [
        "rationales",
        "--data",
        "photos",
        "--base-url",
        handle.url,
        "--model",
        "policy",
        "--out",
        "mine.jsonl",
        *more,
    ]


# Marks


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    "What the command wrote and said about one plate of each seen class of birds."
    path = tmp_path_factory.mktemp("marks") / "mine.jsonl"
    return path, ok("rationales", "--data", "birds", "--classes", "seen", "--shots", 1, "--marks", "--out", path)


def test_marks_are_written_for_the_plates_a_recipe_trains_on(seen):
    path, told = seen
    samples = training_samples(load_recipe("smoke/cot", SHORT[1::2]))
    made = plate_rationales(samples)
    assert read_rationales(path) == made.rationales and all(split_of(sample) == "seen" for sample in samples)
    first, *reasons, last = told.splitlines()
    assert (first, last) == (
        f"30 images: {len(made.rationales)} rationales kept, {len(made.refused)} refused",
        f"wrote {path}",
    )
    assert {line[11:]: int(line[:9]) for line in reasons} == made.reasons() and reasons
    before = path.read_bytes()
    assert refused("rationales", "--data", "birds", "--marks", "--out", path) == f"{path} exists; choose another --out"
    assert path.read_bytes() == before


def test_how_many_plates(folder):
    assert ok("rationales", "--data", "pets", "--marks", "--out", "a.jsonl").startswith("100 images: ")
    assert ok("rationales", "--data", "pets", "--limit", 7, "--marks", "--out", "b.jsonl").startswith("7 images: ")


# A teacher


def test_a_teacher_is_asked_and_what_it_writes_is_counted(photos, teacher):
    told = ok(*asks(teacher))
    assert (
        told == "8 images: 6 rationales kept, 2 refused\n        2  the prediction names ..., not the label ...\nwrote "
        "mine.jsonl\n"
    )
    assert [one.sample_id for one in read_rationales("mine.jsonl")] == [f"{i}.png" for i in (0, 1, 2, 4, 5, 6)]
    assert len(Path("mine.refused.jsonl").read_text().splitlines()) == 2
    calls = teacher.calls
    assert ok(*asks(teacher)) == told and teacher.calls == calls
    assert ok(*asks(teacher, "--shots", 1)[:-4], "--out", "shots.jsonl", "--shots", 1).startswith(
        "4 images: 3 rationales kept, 1 refused\n"
    )


def test_a_card_says_who_was_asked_and_what_was_agreed_on(photos, teacher):
    teacher.refuses, teacher.takes = {"max_tokens": None}, ("max_completion_tokens",)
    for _ in range(2):  # again, with nobody asked
        ok(*asks(teacher))
        card = json.loads(Path("mine.card.json").read_text())
        assert card["request"]["renamed"] == {"max_tokens": "max_completion_tokens"}
        assert card["teacher"] == "policy" and card["counts"] == {"images": 8, "kept": 6, "refused": 2}


def test_another_teacher_behind_the_name_is_refused(photos, teacher):
    teacher.gone_after = 3
    refused(*asks(teacher))
    teacher.gone_after, teacher.answers, teacher.entry = None, 0, {"root": "toys/other"}
    line = refused(*asks(teacher))
    assert line == (
        "mine.jsonl holds rationales of another teacher under the same name (weights was toys/policy, is toys/other); "
        "put the old one back, or choose another --out"
    )
    teacher.entry = {"root": "toys/policy"}
    ok(*asks(teacher))
    assert json.loads(Path("mine.card.json").read_text())["answered_by"] == {"weights": "toys/policy"}


def test_a_corrected_label_is_told_to_the_teacher_again_and_no_other(photos, teacher):
    ok(*asks(teacher))
    table = Path("photos/labels.csv").read_text().splitlines()
    asked = teacher.answers
    first = read_rationales("mine.jsonl")[0]
    other = next(one.label for one in read_rationales("mine.jsonl") if one.label != first.label)
    mended = [line.replace(first.label, other) if line.startswith(first.sample_id) else line for line in table]
    Path("photos/labels.csv").write_text("\n".join(mended) + "\n")
    call(*asks(teacher))
    assert teacher.answers == asked + 1
    assert {one.sample_id: one.label for one in read_rationales("mine.jsonl")}.get(first.sample_id, other) == other


def test_a_teacher_that_is_gone_is_one_line_and_the_same_command_goes_on(photos, teacher):
    teacher.gone_after = 3
    assert (
        refused(*asks(teacher))
        == f"the server at {teacher.url} is gone (status 503: shutting down); what was answered is kept; start the "
        "server and run again"
    )
    assert len(read_rationales("mine.jsonl")) == 3
    teacher.gone_after, teacher.answers, teacher.script = None, 0, [400]
    result = call(*asks(teacher))
    assert (result.exit_code, result.stderr) == (
        1,
        "error: 1 images had no reply; the same command asks about them again\n",
    )
    assert ok(*asks(teacher)).startswith("8 images: 6 rationales kept, 2 refused\n") and teacher.answers == 5
    assert (
        refused(*asks(teacher, "--classes", "seen"))
        == "mine.jsonl holds rationales of another teacher or of other samples; choose another file"
    )


def test_the_key_of_a_teacher_is_taken_from_the_environment_and_never_shown(photos, teacher, monkeypatch):
    teacher.key = "sk-secret-17"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other-18")
    told, files = refused(*asks(teacher)), listing()
    assert "401" in told and "sk-" not in told and not [name for name in files if name.endswith(".jsonl")]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-17")
    assert "sk-" not in ok(*asks(teacher)) + Path("mine.jsonl").read_text() + Path("mine.refused.jsonl").read_text()


def test_what_the_command_rationales_refuses(photos):
    before = listing()
    base = ("rationales", "--data", "photos", "--out", "mine.jsonl")
    needs = (
        "a teacher needs its server and its name: --base-url http://localhost:8000/v1 --model NAME; or pass "
        "--marks for field guide plates"
    )
    assert refused(*base) == refused(*base, "--base-url", "http://localhost:8000/v1") == needs
    assert refused(*base, "--marks", "--model", "m") == "--marks asks nobody: leave out --base-url and --model"
    assert refused(*base, "--marks").startswith(
        f"'0.png' with label {LABELS[0]!r} is no plate of the field guide; rationales for other images come from a "
        "file or a teacher"
    )
    assert refused(*base, "--marks", "--classes", "both") == "unknown classes 'both': use one of all, seen, unseen"
    assert (
        refused(*base, "--base-url", "localhost", "--model", "m")
        == "base_url is no http(s) address; give one such as http://localhost:8000/v1"
    )
    assert refused("rationales", "--data", "cub200", "--marks", "--out", "mine.jsonl").startswith(
        "data set cub200: say where it lies, cub200=FOLDER"
    )
    assert refused(
        "rationales", "--data", "cub200", "--data-root", "photos", "--marks", "--out", "mine.jsonl"
    ).startswith("photos/cub200")
    assert refused("rationales", "--data", "unicorns", "--marks", "--out", "mine.jsonl").startswith(
        "no data set 'unicorns' and no such folder"
    )
    Path("photos/labels.csv").write_text("file,label\n" + "".join(f"{i}.png,ovenbird\n" for i in range(8)))
    assert (
        refused(*base, "--marks", "--classes", "seen")
        == "photos: images without a data set have no known classes beside their own; add a column dataset to "
        "labels.csv"
    )
    Path("photos/labels.csv").write_text("file,label,dataset\n" + "".join(f"{i}.png,zebra,birds\n" for i in range(8)))
    assert (
        refused(*base, "--marks", "--classes", "unseen")
        == "photos: no image is of a class that is unseen; use --classes all"
    )
    assert listing() == before


def test_a_file_in_which_nothing_is_kept_is_an_error(photos, teacher):
    Path("photos/labels.csv").write_text(
        "file,label,dataset\n" + "".join(f"{i}.png,ovenbird,birds\n" for i in range(8))
    )
    result = call(*asks(teacher, "--limit", 3))
    assert (
        result.stdout
        == "3 images: 0 rationales kept, 3 refused\n        3  the prediction names ..., not the label ...\nwrote no "
        "rationales\n"
    )
    assert (result.exit_code, result.stderr) == (
        1,
        "error: not one rationale was kept, for the reasons above\n",
    ) and not Path("mine.jsonl").exists()


# Training on a file


@pytest.fixture
def mine(folder, seen):
    "Rationales that speak of zebras."
    Path("mine.jsonl").write_text(seen[0].read_text().replace('"analysis":"', '"analysis":"like a zebra, '))
    return Path("mine.jsonl")


def test_a_policy_is_trained_on_the_rationales_of_a_file(mine):
    out = ok("train", "smoke/cot", *SHORT, "--rationales", mine, "--out", "run")
    assert out == "wrote run; evaluate it with: speciarl evaluate --model run/policy --data DIR --out RUN\n"
    digest = hashlib.sha256(mine.read_bytes()).hexdigest()
    assert (
        json.loads(Path("run/card.json").read_text())["rationales"] == digest
        and f"| rationales | {digest} |" in Path("run/policy/README.md").read_text()
    )
    assert (
        Path("run/rationales.jsonl").read_bytes() == mine.read_bytes()
        and "zebra" in Path("run/policy/tokenizer.json").read_text()
    )
    assert (
        refused("train", "smoke/cot", *SHORT, "--rationales", mine, "--out", "run")
        == "run/card.json exists; choose another --out"
    )


def test_a_run_goes_on_with_its_own_rationales_only(mine):
    os.makedirs("run/checkpoints")
    other = "run holds an unfinished run on other rationales; choose another --out, or delete it"
    assert refused("train", "smoke/cot", *SHORT, "--rationales", mine, "--out", "run") == other
    Path("run/rationales.jsonl").write_bytes(mine.read_bytes() + b"\n")
    assert (
        refused("train", "smoke/cot", *SHORT, "--rationales", mine, "--out", "run")
        == refused("train", "smoke/cot", *SHORT, "--out", "run")
        == other
    )


def test_rationales_that_cannot_be_taught(mine):
    assert (
        refused("train", "smoke/sft", "--rationales", mine, "--out", "run")
        == "--rationales goes with method cot only; the method of smoke/sft is sft"
    )
    assert (
        refused("train", "smoke/cot", "--rationales", "no.jsonl", "--out", "run")
        == "no.jsonl: no file of rationales (JSON lines, UTF-8); check the path"
    )
    mine.write_text("{}\n")
    assert (
        refused("train", "smoke/cot", "--rationales", mine, "--out", "run")
        == "mine.jsonl: line 1: sample_id: Field required"
    )
    assert not Path("run").exists()


def test_every_method_is_trained_in_its_own_way(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "speciarl.fine_r1.methods.train", lambda recipe, out, **options: asked.append((recipe.method, sorted(options)))
    )
    monkeypatch.setattr("speciarl.fine_r1.methods.draw_training", lambda run: None)
    monkeypatch.setattr("speciarl.fine_r1.methods.write_model_card", lambda run: None)
    monkeypatch.setattr("speciarl.cli.training.tell_cut", lambda run, max_tokens: None)  # it reads the run's card
    for name in ("sft", "self", "speciarl", "cot", "tapo"):
        ok("train", f"smoke/{name}", "--out", f"runs/{name}")
    assert asked == [
        (method, ["data_root", "judge_url", "report_to", "say", "store"])
        for method in ("sft", "self", "grpo", "cot", "tapo")
    ]


def test_tapo_is_trained_and_drawn(folder):
    tiny = [
        "steps=2",
        "data={birds: 4}",
        "classes=all",
        "shots=null",
        "positives=false",
        "negatives=none",
        "inter_weight=0.0",
        "negative_entropy_weight=0.0",
        "prompts_per_generation=2",
        "prompts_per_step=2",
        "rollouts=2",
        "micro_batch=4",
        "accuracy_band=null",
    ]
    ok("train", "smoke/tapo", *(word for change in tiny for word in ("--set", change)), "--out", "run")
    assert (
        Path("run/curves.png").stat().st_size
        and json.loads(Path("run/card.json").read_text())["recipe"]["method"] == "tapo"
    )


# Closed-world questions


def test_a_policy_is_asked_questions_with_options(folder):
    arguments = ["--model", "fieldguide-base", "--data", "birds", "--split", "validation", "--limit", 12]
    told = ok("closed", *arguments, "--out", "a")
    ok("closed", *arguments, "--out", "b")
    assert sorted(path.name for path in Path("a").iterdir()) == [
        "answers.jsonl",
        "closed.card.json",
        "closed.csv",
        "closed.json",
        "closed.md",
        "closed.tex",
    ]
    assert all((Path("a") / name.name).read_bytes() == name.read_bytes() for name in Path("b").iterdir())
    rows = list(csv.DictReader(open("a/closed.csv")))
    assert (
        [row["classes"] for row in rows] == ["all", "seen", "unseen"]
        and rows[0]["n"] == "12"
        and rows[0]["chance"] == "0.25"
    )
    assert {
        "accuracy",
        "accuracy low",
        "accuracy high",
        "released",
        "constant",
        "no answer",
        "several options",
        "no option",
        "no reply",
    } <= set(rows[0])
    samples = read_data("birds", "validation", 12)
    answers = [json.loads(line) for line in Path("a/answers.jsonl").read_text().splitlines()]
    assert [(row["sample_id"], tuple(row["options"])) for row in answers] == [
        (one.sample.id, one.options) for one in questions(samples)
    ]
    card = json.loads(Path("a/closed.card.json").read_text())
    right = sum(row["chosen"] == row["right"] for row in answers)
    assert (
        card["scores"][0]["accuracy"][0]
        == pytest.approx(right / 12)
        == pytest.approx(float(rows[0]["accuracy"]), abs=1e-6)
    )
    assert {
        key: card["settings"][key] for key in ("engine", "options", "distractors", "seed", "samples", "datasets")
    } == dict(engine="transformers", options=4, distractors="sibling", seed=0, samples=12, datasets=["birds"])
    assert (
        told.splitlines()[0].split() == ["classes", "n", "accuracy", "released", "chance", "constant"]
        and "wrote a/closed.csv" in told
    )
    assert refused("closed", *arguments, "--out", "a") == "a/answers.jsonl exists; choose another --out"


def test_a_server_is_asked_with_the_options_of_each_question(photos, policy_server, monkeypatch):
    samples = read_data(str(photos))
    prompts = {closed_prompt(one): one for one in questions(samples, 3, "random", 5)}
    monkeypatch.setattr(
        server, "expected", lambda image, prompt, seed, n=1: [f"<answer> {prompts[prompt].sample.label} </answer>"]
    )
    policy_server.refuse_width = 31
    policy_server.refuses, policy_server.takes = {"max_tokens": None}, ("max_completion_tokens",)
    Image.new("RGB", (31, 30)).save("photos/0.png")
    ok(
        "closed",
        "--model",
        "policy",
        "--engine",
        "openai",
        "--base-url",
        policy_server.url,
        "--data",
        photos,
        "--options",
        3,
        "--distractors",
        "random",
        "--seed",
        5,
        "--out",
        "out",
    )
    row = next(csv.DictReader(open("out/closed.csv")))
    assert (row["n"], row["accuracy"], row["no reply"], row["released"]) == ("8", "1", "1", "0.875")
    card = json.loads(Path("out/closed.card.json").read_text())
    assert card["request"] == {"renamed": {"max_tokens": "max_completion_tokens"}}


def test_a_server_that_answers_nothing_or_is_gone_leaves_nothing(photos, policy_server, monkeypatch):
    arguments = [
        "closed",
        "--model",
        "policy",
        "--engine",
        "openai",
        "--base-url",
        policy_server.url,
        "--data",
        photos,
        "--out",
        "out",
    ]
    policy_server.refuse_width = 30
    assert (
        refused(*arguments)
        == "not one of the 8 images was answered: check that the pictures can be read and that the model takes pictures"
    )
    monkeypatch.setattr(
        "speciarl.policy.server.ServerEngine", partial(ServerEngine, retries=0, give_up_after=2, concurrency=1)
    )
    policy_server.refuse_width, policy_server.gone_after = None, 2
    assert (
        refused(*arguments)
        == f"the server at {policy_server.url} is gone (status 503: shutting down); start the server and run again"
    )
    assert not Path("out").exists()


def test_what_the_command_closed_refuses(photos):
    base, before = ["closed", "--model", "fieldguide-base", "--out", "out"], listing()
    there = len(classes_of("birds")) - 1
    assert (
        refused(*base, "--data", photos, "--options", 999)
        == f"birds: there are {there} other classes for {LABELS[0]!r}, not the 998 that a question needs; ask for "
        "fewer options"
    )
    assert (
        refused(*base, "--data", photos, "--distractors", "visual")
        == "unknown distractors 'visual': use sibling or random"
    )
    assert "--options" in refused(*base, "--data", photos, "--options", 1)
    assert (
        refused(*base, "--data", photos, "--engine", "magic")
        == "unknown engine 'magic': use one of transformers, vllm, openai"
    )
    assert refused(*base, "--data", "unicorns").startswith("no data set 'unicorns' and no such folder")
    Path("photos/labels.csv").write_text("file,label,dataset\n" + "".join(f"{i}.png,zebra,birds\n" for i in range(8)))
    assert (
        refused(*base, "--data", photos)
        == "'zebra' is no class of birds, so there are no options to offer; correct the label or the data set"
    )
    Path("photos/labels.csv").write_text("file,label\n" + "".join(f"{i}.png,ovenbird\n" for i in range(8)))
    assert (
        refused(*base, "--data", photos)
        == "photos: images without a data set have no known classes beside their own; add a column dataset to "
        "labels.csv"
    )
    assert listing() == before


def test_json_has_no_number_that_is_none():
    assert plain_rows([{"a": Mean(float("nan"), 0.5, 1.0, 3), "b": float("nan"), "c": 2}]) == [
        {"a": [None, 0.5, 1.0], "b": None, "c": 2}
    ]


def test_classes_and_shots_keep_the_order():
    samples = [
        Sample(str(i), Path("x"), label, "birds")
        for i, label in enumerate(["ovenbird", LABELS[0], "ovenbird", "ovenbird"])
    ]
    assert [sample.id for sample in of_classes(samples, "all", 2, "x")] == ["0", "1", "2"]
    assert {split_of(sample) for sample in of_classes(samples, split_of(samples[0]), None, "x")} == {
        split_of(samples[0])
    }


def test_curves_of_several_steps_on_one_generation(tmp_path):
    """Only the first of them has sampled, so the others log no reward; a run of smoke/tapo ended in an error when
    its curves were drawn."""
    from speciarl.fine_r1.methods import draw_training

    shares = dict.fromkeys(
        (
            "share_wrong",
            "share_abstain",
            "share_generic",
            "share_less_specific",
            "share_specific",
            "share_more_specific",
        ),
        0.1,
    )
    rows = [
        {"step": 1, "loss": 0.1, "reward": 0.5, **shares},
        {"step": 2, "loss": 0.1},
        {"step": 3, "loss": 0.1, "reward": 0.6, **shares},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "card.json").write_text(json.dumps({"recipe": {"name": "smoke/tapo", "method": "tapo"}, "sha256": "0"}))
    draw_training(tmp_path)
    assert (tmp_path / "curves.png").stat().st_size > 5000
