"Rationales: the form and its validator, plates, teachers that fail, words, and fine-tuning on them."

import json
from pathlib import Path

import policy_server as server
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from policy_server import policy_server  # noqa: F401 - a fixture
from refusal import message

from speciarl.core.config import ASSETS
from speciarl.core.names import name_key
from speciarl.core.scale import extract_answer
from speciarl.data.fieldguide import DOMAINS, World, individual_of, plates
from speciarl.data.samples import Sample
from speciarl.data.trees import load_tree
from speciarl.fine_r1.cot import COT, cot, lessons, teach_words, unknown_words, with_more_words
from speciarl.fine_r1.rationales import (
    Rationale,
    RefusedRationale,
    Teacher,
    ask_teacher,
    fault,
    json_schema,
    named_in,
    parse,
    plate_rationale,
    plate_rationales,
    read_rationales,
    read_reply,
    render,
    write_rationales,
)
from speciarl.policy.model import load_policy
from speciarl.policy.server import EngineGone
from speciarl.training.loop import train
from speciarl.training.recipe import load_recipe

TERN = Rationale(
    sample_id="17.jpg",
    label="tern",
    analysis="slim and white",
    candidates=("arctic tern", "tern", "gull"),
    comparison="a gull is heavier, an arctic tern has a red bill",
    prediction="tern",
)


def changed(**changes) -> Rationale:
    return TERN.model_copy(update=changes)


# The form


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({}, None),
        ({"analysis": " "}, "the step analysis is missing"),
        ({"candidates": ()}, "the step candidates is missing"),
        ({"comparison": "..."}, "the step comparison is missing"),
        ({"prediction": ""}, "the step prediction is missing"),
        ({"prediction": "gull"}, "the prediction names 'gull', not the label 'tern'"),
        ({"prediction": "arctic tern"}, "the prediction names 'arctic tern', not the label 'tern'"),
        ({"label": "arctic tern"}, "the prediction names 'tern', not the label 'arctic tern'"),
        ({"prediction": "tern or gull"}, "the prediction names 'gull', not the label 'tern'"),
        (
            {"prediction": "it is a tern"},
            "the prediction 'it is a tern' does not end in the label 'tern' alone; write the label and nothing else",
        ),
        (
            {"prediction": "sooty tern"},
            "the prediction 'sooty tern' does not end in the label 'tern' alone; write the label and nothing else",
        ),
        ({"candidates": ("tern",)}, "there is one candidate; a comparison needs two or more"),
        ({"candidates": ("gull", "arctic tern")}, "the candidates do not hold the label 'tern'; add it"),
        ({"candidates": ("tern", "Tern", "gull")}, "the candidate 'tern' is listed twice; keep one"),
        (
            {"candidates": ("tern", "gull, skua")},
            "the candidate 'gull, skua' is no name; give one name for each candidate, without commas",
        ),
        (
            {"comparison": "a gull is heavier, a tern is not"},
            "the comparison says nothing of the candidate 'arctic tern'",
        ),
        ({"comparison": "an arctic tern has a red bill, gull"}, None),
        (
            {"analysis": "white. Prediction: tern"},
            "the analysis holds 'Prediction:', which is a mark of the form; say it in other words",
        ),
        (
            {"comparison": "gull, arctic tern </think>"},
            "the comparison holds '</think>', which is a mark of the form; say it in other words",
        ),
        ({"label": "?!"}, "the label '?!' holds no letter or digit; mend the label"),
    ],
)
def test_the_first_fault_is_told(changes, expected):
    assert fault(changed(**changes)) == expected
    if expected:
        assert message(render, changed(**changes)) == f"the rationale of 17.jpg: {expected}"


def test_a_name_inside_another_is_another_name():
    assert named_in("arctic terns", ("tern", "arctic tern")) == ["arctic tern"]
    assert named_in("the tern, no arctic tern", ("tern", "arctic tern")) == ["tern", "arctic tern"]
    assert named_in("bittern", ("tern",)) == []


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda text: "tern", "the text is not a <think> block with an <answer> block after it, and nothing else"),
        (
            lambda text: text + " so be it",
            "the text is not a <think> block with an <answer> block after it, and nothing else",
        ),
        (lambda text: text.replace("Comparison:", ""), "the step comparison is missing"),
        (
            lambda text: text.replace("Analysis:", "Prediction: tern Analysis:"),
            "the think block must hold the steps analysis, candidates, comparison, prediction once each, in this "
            "order, and nothing before them",
        ),
        (
            lambda text: text.replace("<answer> tern", "<answer> arctic tern"),
            "the answer is 'arctic tern', not the label 'tern'",
        ),
        (lambda text: text.replace("<answer> tern", "<answer> "), "the answer is empty"),
        (
            lambda text: text.replace("Prediction: tern", "Prediction: arctic tern"),
            "the prediction names 'arctic tern', not the label 'tern'",
        ),
    ],
)
def test_texts_that_break_the_form(change, expected):
    assert message(parse, change(render(TERN)), "17.jpg", "tern") == expected


WORDS = st.text("abc é'’-ß0:,<>/|.", max_size=12)
NAMES = st.lists(
    st.sampled_from(["tern", "arctic tern", "gull", "Colt's foot", "F/A-18", "A330-200", "great black-backed gull"]),
    min_size=2,
    max_size=5,
    unique=True,
)


@settings(max_examples=150, deadline=None)
@given(WORDS, NAMES, st.integers(0, 9), WORDS, st.booleans())
def test_what_obeys_the_form_survives_its_text(analysis, names, at, more, lower):
    label = names[at % len(names)]
    rationale = Rationale(
        sample_id="1",
        label=label,
        analysis=f"white {analysis}",
        candidates=tuple(names),
        comparison=f"unlike {', '.join(names)}, {more}",
        prediction=label,
    )
    if fault(rationale):
        assert "\n" not in fault(rationale)
        return
    text = render(rationale)
    assert extract_answer(text) == label
    read = parse(text, "1", label)
    assert (
        read.candidates == rationale.candidates
        and read.prediction == label
        and read.comparison == " ".join(rationale.comparison.split())
    )
    spaced = text.replace(":", " : ").replace(",", " , ")  # as the small policy's tokenizer gives it back
    assert parse(spaced.lower() if lower else spaced, "1").sample_id == "1"


@settings(max_examples=150, deadline=None)
@given(WORDS, st.lists(WORDS, max_size=4), WORDS, WORDS, WORDS)
def test_the_validator_never_fails_and_answers_in_one_line(analysis, candidates, comparison, prediction, label):
    found = fault(
        Rationale(
            sample_id="1",
            label=label or "x",
            analysis=analysis,
            candidates=tuple(candidates),
            comparison=comparison,
            prediction=prediction,
        )
    )
    assert found is None or "\n" not in found
    if found is None:
        assert name_key(prediction) == name_key(label or "x")


@settings(max_examples=100, deadline=None)
@given(st.text("<>/:, \nabthinkswer", max_size=80))
def test_any_text_is_read_or_refused_in_one_line(text):
    for candidate in (text, f"<think> {text} </think> <answer> tern </answer>"):
        try:
            parse(candidate)
        except Exception as error:
            assert type(error).__name__ == "UserError" and "\n" not in str(error)


# Files


def test_the_packaged_schema_is_that_of_the_class():
    assert json.loads((ASSETS / "schemas" / "rationale.schema.json").read_text(encoding="utf-8")) == json_schema()


def test_a_file_is_read_back(tmp_path):
    path = write_rationales(tmp_path / "mine.jsonl", [TERN, changed(sample_id="18.jpg")])
    assert read_rationales(path) == [TERN, changed(sample_id="18.jpg")]
    path.write_text(path.read_text() + '{"sample_id": "19')
    assert len(read_rationales(path, torn=True)) == 2
    assert message(read_rationales, path) == f"{path}:3: not a line of JSON in UTF-8; mend it, or leave it out"


def test_a_separator_of_unicode_does_not_end_a_line(tmp_path):
    "A teacher may write U+2028, which JSON holds as it is."
    told = changed(analysis=TERN.analysis.replace(" ", "\u2028", 1))
    assert read_rationales(write_rationales(tmp_path / "mine.jsonl", [told])) == [told]


@pytest.mark.parametrize(
    "line, expected",
    [
        ('{"sample_id": "1"}', "label: Field required"),
        (
            TERN.model_dump_json().replace('"analysis"', '"analyses": "", "analysis"'),
            "unknown key 'analyses'; it may have: sample_id, label, analysis, candidates, comparison, prediction, "
            "source",
        ),
        (
            changed(prediction="arctic tern").model_dump_json(),
            "the prediction names 'arctic tern', not the label 'tern'",
        ),
        (TERN.model_dump_json() + "\n" + TERN.model_dump_json(), "a second rationale of '17.jpg'; keep one"),
        ("[]", "the file: Input should be a valid dictionary or instance of Rationale"),
    ],
)
def test_bad_lines_are_told_with_their_number(tmp_path, line, expected):
    path = tmp_path / "mine.jsonl"
    path.write_text(line + "\n")
    found = message(read_rationales, path)
    assert found.startswith(f"{path}: line {2 if 'second' in expected else 1}: ") and found.endswith(expected)


def test_a_file_that_is_not_there(tmp_path):
    assert (
        message(read_rationales, tmp_path / "no.jsonl")
        == f"{tmp_path / 'no.jsonl'}: no file of rationales (JSON lines, UTF-8); check the path"
    )


# Plates


def test_plates_argue_from_their_marks_and_stay_within_their_split():
    for domain in DOMAINS:
        split = {node.name: node.split for node in load_tree(domain).nodes if node.is_class}
        samples = plates(domain, "train", 24, seed=3)
        written = plate_rationales(samples)
        assert len(written.rationales) + len(written.refused) == 24 and written.rationales
        for one in written.rationales:
            assert fault(one) is None and one.candidates[0] == one.label and len(one.candidates) == 2
            assert {split[name] for name in one.candidates} == {split[one.label]}
        assert set(written.reasons()) <= {"the plate hides its marks", "the plate shows the marks of another class"}
        clear = {
            sample.id for sample in samples if (i := individual_of(sample)).condition == "clear" and i.looks == i.k
        }
        assert {one.sample_id for one in written.rationales} == clear


def test_a_plate_of_another_world_is_told():
    sample = plates("birds", "train", 1, world=World(siblings=5))[0]
    assert plate_rationale(sample, World(siblings=5)) is not None
    other = Sample("birds-train-0-00000", sample.image, "house sparrow", "birds")
    assert (
        message(plate_rationale, other)
        == "'birds-train-0-00000' with label 'house sparrow' is no plate of the field guide; rationales for other "
        "images come from a file or a teacher"
    )


# Teachers


@pytest.fixture
def photos(tmp_path):
    samples = []
    for i, label in enumerate(["tern", "arctic tern", "gull", "tern", "skua", "gull", "tern", "skua"]):
        Image.new("RGB", (30, 30), (40 * i % 256, 20 * i, 9)).save(tmp_path / f"{i}.png")
        samples.append(Sample(f"{i}.png", tmp_path / f"{i}.png", label))
    return samples


@pytest.fixture
def teacher(policy_server, monkeypatch):
    "A teacher whose server writes a rationale that ends in the label it was told; and the server's handle."

    def write(image, prompt, seed, n=1):
        label = prompt.split("The image shows: ")[1].split(". Explain")[0] if "The image shows: " in prompt else "tern"
        rival = "gull" if label != "gull" else "tern"
        return [
            json.dumps(
                dict(
                    analysis="white",
                    candidates=[label, rival],
                    comparison=f"a {rival} is not like that",
                    prediction=label,
                )
            )
        ]

    monkeypatch.setattr(server, "expected", write)
    monkeypatch.setattr(server, "FIELDS", server.FIELDS | {"response_format"})
    return Teacher("policy", policy_server.url, retries=0, give_up_after=2, concurrency=1), policy_server


def test_a_teacher_explains_labels(teacher, photos, tmp_path):
    made = ask_teacher(teacher[0], photos, tmp_path / "out.jsonl")
    assert [one.sample_id for one in made.rationales] == [sample.id for sample in photos] and not made.refused
    assert {one.source for one in made.rationales} == {"policy"} and read_rationales(
        tmp_path / "out.jsonl"
    ) == made.rationales
    calls = teacher[1].calls
    assert ask_teacher(teacher[0], photos, tmp_path / "out.jsonl") == made and teacher[1].calls == calls


def test_what_ends_elsewhere_is_refused_and_counted(teacher, photos, tmp_path):
    blind = Teacher("policy", teacher[1].url, tell=False)
    made = ask_teacher(blind, photos, tmp_path / "out.jsonl")
    assert [one.label for one in made.rationales] == ["tern"] * 3
    assert made.reasons() == {"the prediction names ..., not the label ...": 5}
    noted = [json.loads(line) for line in (tmp_path / "out.refused.jsonl").read_text().splitlines()]
    assert {(one["sample_id"], one["reason"]) for one in noted} == set(made.refused) and all(
        "white" in one["text"] for one in noted
    )
    assert ask_teacher(blind, photos, tmp_path / "out.jsonl") == made


def test_a_server_that_fails_midway_loses_nothing(teacher, photos, tmp_path):
    out, handle = tmp_path / "out.jsonl", teacher[1]
    handle.gone_after = 3
    told = message(ask_teacher, teacher[0], photos, out, kind=EngineGone)
    assert (
        told == f"the server at {handle.url} is gone (status 503: shutting down); what was answered is kept; start the "
        "server and run again"
    )
    assert [one.sample_id for one in read_rationales(out)] == ["0.png", "1.png", "2.png"]
    out.write_text(out.read_text() + '{"sample_id": "3.p')  # killed while it wrote
    handle.gone_after, handle.answers = None, 0
    made = ask_teacher(teacher[0], photos, out)
    assert handle.answers == 5 and len(made.rationales) == 8 and read_rationales(out) == made.rationales


def test_a_sample_that_had_no_reply_is_asked_again(teacher, photos, tmp_path):
    teacher[1].script = ["", 500, "", "none"]
    made = ask_teacher(teacher[0], photos, tmp_path / "out.jsonl")
    assert [one.sample_id for one in made.refused] == ["1.png", "3.png"] and made.refused[
        0
    ].reason == "no reply: status 500: as told"
    assert len(ask_teacher(teacher[0], photos, tmp_path / "out.jsonl").rationales) == 8


def test_another_teachers_file_is_left_alone(teacher, photos, tmp_path):
    out = write_rationales(tmp_path / "out.jsonl", [changed(sample_id="0.png", source="somebody")])
    before = out.read_bytes()
    assert (
        message(ask_teacher, teacher[0], photos, out)
        == f"{out} holds rationales of another teacher or of other samples; choose another file"
    )
    assert out.read_bytes() == before


def test_the_api_key_is_never_written(policy_server, photos, tmp_path, monkeypatch):
    policy_server.key = "sk-secret-17"
    told = message(
        ask_teacher, Teacher("policy", policy_server.url, api_key="sk-other-18"), photos, tmp_path / "out.jsonl"
    )
    assert "sk-" not in told and "401" in told
    policy_server.script = ["text"] * 50
    try:
        ask_teacher(
            Teacher("policy", policy_server.url, api_key="sk-secret-17", give_up_after=100),
            photos,
            tmp_path / "out.jsonl",
        )
    finally:
        written = "".join(path.read_text() for path in tmp_path.glob("*.jsonl"))
        assert "sk-" not in written and "sk-" not in repr(Teacher("policy", policy_server.url, api_key="sk-secret-17"))


@pytest.mark.parametrize(
    "text, reason",
    [
        ("a tern", "the reply is not the JSON that was asked for"),
        ("[1]", "the step analysis is missing"),
        ("3", "the reply is not the JSON that was asked for"),
        (
            json.dumps({"analysis": "a", "candidates": "tern", "comparison": "b", "prediction": "tern"}),
            "the reply: candidates: Input should be a valid tuple",
        ),
        (json.dumps({"analysis": "a", "comparison": "b", "prediction": "tern"}), "the step candidates is missing"),
    ],
)
def test_replies_that_are_no_rationale(text, reason):
    assert read_reply(text, Sample("1", Path("1"), "tern"), "t") == RefusedRationale("1", reason)


# Words


def test_words_are_added_and_the_old_ones_stay():
    policy, fresh = load_policy("fieldguide-base"), load_policy("fieldguide-base")
    text = "<think> Analysis: red warbler, dark bar </think> <answer> ovenbird </answer>"
    assert unknown_words(policy.processor.tokenizer, [text]) == [":", "analysis", "bar", "dark"]
    taught, again = teach_words(policy, [text]), teach_words(fresh, [text])
    old = load_policy("fieldguide-base")
    rows, before = taught.model.get_input_embeddings().weight, old.model.get_input_embeddings().weight
    assert (
        torch.equal(rows[: len(before)], before)
        and torch.equal(rows, again.model.get_input_embeddings().weight)
        and len(rows) == len(before) + 4
    )
    assert taught.model.config.get_text_config().vocab_size == len(taught.processor.tokenizer) == len(rows)
    ids = taught.processor.tokenizer(text).input_ids
    assert taught.processor.tokenizer.unk_token_id not in ids
    assert (
        taught.processor.tokenizer.decode(ids, skip_special_tokens=True)
        == "<think> analysis : red warbler , dark bar </think> <answer> ovenbird </answer>"
    )
    assert (
        taught.processor.tokenizer("name what <|im_end|>").input_ids
        == old.processor.tokenizer("name what <|im_end|>").input_ids
    )
    assert teach_words(taught, [text]) is taught


def test_a_tokenizer_of_pieces_lacks_no_words():
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    assert unknown_words(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE({"a": 0}, []))), ["a b"]) == []
    tokenizer = load_policy("fieldguide-base").processor.tokenizer
    assert with_more_words(tokenizer, ["zebra"]).all_special_tokens == tokenizer.all_special_tokens


# CoT SFT

SHORT = ["steps=2", "prompts_per_step=4", "micro_batch=4", "warmup_steps=1", "shots=1", "data={birds: 30}"]


def test_lessons_leave_out_what_has_no_rationale_and_refuse_what_does_not_fit():
    recipe = load_recipe("smoke/cot", SHORT)
    samples = plates("birds", "train", 6)
    made = [plate_rationale(sample) for sample in samples if isinstance(plate_rationale(sample), Rationale)]
    policy, chosen, texts = lessons(recipe, load_policy("fieldguide-base"), samples, made[:2])
    assert [sample.id for sample in chosen] == [one.sample_id for one in made[:2]] and texts == [
        render(one) for one in made[:2]
    ]
    assert (
        message(lessons, recipe, policy, samples, [])
        == "smoke/cot: there is no rationale for any of the 6 samples; the sample_id of a rationale must be the id "
        "of a sample"
    )
    wrong = TERN.model_copy(update={"sample_id": samples[0].id})
    assert (
        message(lessons, recipe, policy, samples, [wrong])
        == f"smoke/cot: the rationale of {samples[0].id} is about 'tern', the sample is labelled "
        f"{samples[0].label!r}; correct one of them"
    )


def test_cot_is_trained_and_its_policy_knows_the_words(tmp_path):
    out = train(load_recipe("smoke/cot", SHORT), tmp_path / "run", way=COT)
    policy = load_policy(out / "policy")
    assert unknown_words(policy.processor.tokenizer, ["Analysis: Candidates: Comparison: Prediction:"]) == []
    assert len((out / "log.jsonl").read_text().splitlines()) == 2


def test_rationales_of_ones_own_are_taught_instead(tmp_path):
    recipe = load_recipe("smoke/cot", SHORT)
    from speciarl.training.settings import training_samples

    samples = training_samples(recipe)
    path = write_rationales(
        tmp_path / "mine.jsonl",
        [
            Rationale(
                sample_id=sample.id,
                label=sample.label,
                analysis="a zebra",
                candidates=(sample.label, "okapi"),
                comparison="no okapi",
                prediction=sample.label,
            )
            for sample in samples[:4]
        ],
    )
    policy, chosen, texts = cot(path).lessons(recipe, load_policy("fieldguide-base"), samples, None)
    assert len(chosen) == 4 and "zebra" in texts[0] and unknown_words(policy.processor.tokenizer, texts) == []


# Recipes


def test_the_published_constants_are_in_the_recipes():
    three, seven = load_recipe("paper/fine_r1_cot_3b"), load_recipe("paper/fine_r1_cot_7b")
    for recipe, size in ((three, "3B"), (seven, "7B")):
        assert recipe.policy == f"Qwen/Qwen2.5-VL-{size}-Instruct"
        assert (recipe.method, recipe.classes, recipe.shots, recipe.images) == ("cot", "seen", 1, 452)
        assert (
            recipe.learning_rate,
            recipe.schedule,
            recipe.warmup_steps,
            recipe.weight_decay,
            recipe.epochs,
            recipe.prompts_per_step,
            recipe.micro_batch,
        ) == (5e-6, "cosine", 6, 0.1, 10, 64, 4)
        assert (recipe.lora_rank, recipe.train_vision, recipe.dtype) == (0, False, "bfloat16")
    seen = {name: sum(node.is_class and node.split == "seen" for node in load_tree(name).nodes) for name in three.data}
    assert dict(three.data) == seen
    text = (ASSETS / "recipes" / "paper" / "fine_r1_cot_7b.yaml").read_text(encoding="utf-8")
    assert all(
        "#" in line
        for line in text.splitlines()
        if line.split(":")[0]
        in (
            "learning_rate",
            "schedule",
            "warmup_steps",
            "weight_decay",
            "epochs",
            "prompts_per_step",
            "micro_batch",
            "shots",
        )
    )


def test_small_twins_have_room_for_their_rationales():
    tokenizer = load_policy("fieldguide-base").processor.tokenizer
    texts = [render(one) for one in plate_rationales(plates("birds", "train", 100)).rationales]
    known = with_more_words(tokenizer, unknown_words(tokenizer, texts))
    longest = max(len(known(text).input_ids) + 1 for text in texts)
    for recipe in (load_recipe("smoke/cot"), load_recipe("laptop/cot")):
        assert longest <= recipe.max_tokens and (recipe.method, recipe.classes, recipe.prompt) == (
            "cot",
            "seen",
            "general",
        )
