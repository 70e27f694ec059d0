"""A run knows what answered and what was shown, whatever they are called: other weights in the same folder, another
model behind a server's name and other pictures under the old names are refused; a corrected label keeps the answers."""

import json
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from command_line import ok, refused
from peft import LoraConfig, get_peft_model
from PIL import Image
from policy_server import policy_server  # noqa: F401 - a fixture

from speciarl.core.files import read_csv, read_jsonl, write_csv
from speciarl.core.scale import Category, UserError
from speciarl.data.fieldguide import plates
from speciarl.data.samples import Sample
from speciarl.data.trees import load_trees
from speciarl.judges.tree import TreeJudge
from speciarl.judges.verdict import Verdict
from speciarl.metrics.runs import evaluate, read_card, read_samples
from speciarl.policy import model, predict
from speciarl.policy.engines import Sampling, TransformersEngine
from speciarl.policy.model import PACKAGED, load_policy, policy_identity
from speciarl.policy.server import ServerEngine

SHORT = Sampling(max_tokens=16)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    "Four pictures of birds with their labels, in the working folder."
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    (tmp_path / "photos").mkdir()
    for number, plate in enumerate(plates("birds", "test", 4)):
        plate.image.save(tmp_path / "photos" / f"{number}.png")
    label(tmp_path / "photos")
    return tmp_path / "photos"


def label(folder, **labels):
    rows = [[f"{i}.png", labels.get(f"_{i}", "ovenbird"), "birds"] for i in range(4)]
    write_csv(folder / "labels.csv", ["file", "label", "dataset"], rows)


def samples_of(folder, label="ovenbird"):
    return [Sample(f"{i}.png", folder / f"{i}.png", label, "birds") for i in range(4)]


def repaint(folder, *numbers):
    "Other pictures under the same names."
    for number in numbers:
        Image.new("RGB", (56, 56), (200, number, 0)).save(folder / f"{number}.png")


def disturbed(folder):
    "Save other weights of the same shapes into the folder of a policy."
    policy = load_policy(folder, device="cpu")
    with torch.no_grad():
        next(policy.model.parameters()).add_(0.01)
    policy.model.save_pretrained(folder)


def adapter(folder, seed):
    torch.manual_seed(seed)
    tuned = get_peft_model(
        load_policy("fieldguide-base", device="cpu").model,
        LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    tuned.peft_config["default"].base_model_name_or_path = "fieldguide-base"
    tuned.save_pretrained(folder)


def run(*more, model="policy", out="run"):
    return ("evaluate", "--model", model, "--data", "photos", "--out", out, "--max-tokens", 16, *more)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


# What answers


def test_other_weights_in_the_same_folder_are_another_run(photos):
    shutil.copytree(PACKAGED["fieldguide-base"], "policy")
    ok(*run())
    before = read_card("run")["answered_by"]
    assert before["weights"] == model.weights_digest("policy"), "as the card of its training says"
    held = files_of(photos.parent / "run")
    ok(*run())
    assert files_of(photos.parent / "run") == held
    disturbed("policy")
    line = refused(*run())
    now = policy_identity("policy")["weights"]
    assert line == (
        f"run holds answers of another model under the same name (weights was {before['weights']}, is {now}); put the "
        "old one back, or choose another --out"
    )
    assert files_of(photos.parent / "run") == held
    ok(*run(out="other"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json", "chat_template.jinja"])
def test_a_changed_processor_is_another_policy(photos, name):
    shutil.copytree(PACKAGED["fieldguide-base"], "policy")
    before = policy_identity("policy")
    with open(f"policy/{name}", "a") as file:
        file.write("\n")
    now = policy_identity("policy")
    assert now["weights"] == before["weights"] and now["processor"] != before["processor"]
    (photos.parent / "policy" / "README.md").write_text("what is not read changes nothing")
    (photos.parent / "policy" / "card.json").write_text("{}")
    assert policy_identity("policy") == now


def test_a_changed_adapter_is_another_policy(photos):
    adapter("adapter", 0)
    ok(*run(model="adapter"))
    assert set(read_card("run")["answered_by"]) == {"weights", "processor", "adapter", "adapter_config"}
    adapter("adapter", 1)
    assert "of another model under the same name (adapter was " in refused(*run(model="adapter"))
    adapter("adapter", 0)
    ok(*run(model="adapter"))
    config = json.loads((photos.parent / "adapter/adapter_config.json").read_text())
    (photos.parent / "adapter/adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1}))
    assert "of another model under the same name (adapter_config was " in refused(*run(model="adapter"))


def test_a_file_of_the_hub_is_known_by_its_name_there(tmp_path, monkeypatch):
    "No byte of fifteen gigabytes is read again."
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / ("0a" * 20)
    blobs.mkdir(), snapshot.mkdir(parents=True)
    for name in ("model.safetensors", "config.json"):
        source = PACKAGED["fieldguide-base"] / name
        sum_ = model.file_digest(source)
        blob = blobs / (sum_ if name.startswith("model") else "5f" * 20)
        shutil.copy(source, blob)
        (snapshot / name).symlink_to(blob)
    read = []
    digest = model.file_digest
    monkeypatch.setattr(model, "file_digest", lambda path: read.append(path.name) or digest(path))
    monkeypatch.setattr(model, "try_to_load_from_cache", lambda repo, name: str(snapshot / name))
    found = policy_identity("owner/model")
    assert read == ["config.json"] and found["revision"] == "0a" * 20
    assert found["weights"] == policy_identity(str(PACKAGED["fieldguide-base"]))["weights"]


def server(handle):
    return ServerEngine("policy", handle.url, retries=0, give_up_after=1, concurrency=1)


def test_another_model_behind_the_name_on_a_server_is_another_run(policy_server, photos):
    samples, judge = samples_of(photos), TreeJudge(load_trees())
    policy_server.entry = {
        "root": "toys/policy",
        "owned_by": "vllm",
        "created": 1,
        "permission": [{"id": "modelperm-1"}],
    }
    card = evaluate(server(policy_server), samples, "run", judge)
    assert card["answered_by"] == {"weights": "toys/policy", "owned_by": "vllm", "created": 1}
    policy_server.entry = policy_server.entry | {"permission": [{"id": "modelperm-2"}]}
    assert evaluate(server(policy_server), samples, "run", judge) == card
    calls = policy_server.calls
    policy_server.entry = policy_server.entry | {"root": "toys/policy-2"}
    with pytest.raises(
        UserError, match=r"\(weights was toys/policy, is toys/policy-2\); put the old one back, or choose"
    ):
        evaluate(server(policy_server), samples, "run", judge)
    assert policy_server.calls == calls and read_card("run") == card
    unfinished = {"settings": card["settings"], "answered_by": card["answered_by"], "finished": False}
    (photos.parent / "run" / "card.json").write_text(json.dumps(unfinished))
    with pytest.raises(UserError, match="of another model under the same name"):
        evaluate(server(policy_server), samples, "run", judge)


def test_another_model_that_only_its_replies_tell_is_another_run(policy_server, photos):
    "As gpt-4o is one dated model this month, and another the next."
    policy_server.calls_itself = {"model": "toy-2026-08", "system_fingerprint": "fp_1"}
    policy_server.gone_after = 2
    with pytest.raises(UserError, match="is gone"):
        evaluate(server(policy_server), samples_of(photos), "run", TreeJudge(load_trees()))
    held = (photos.parent / "run" / "predictions.jsonl").read_bytes()
    policy_server.gone_after, policy_server.calls_itself = None, {"model": "toy-2026-11"}
    with pytest.raises(UserError, match=r"\(the server calls it toy-2026-11, before it was toy-2026-08\); put the old"):
        evaluate(server(policy_server), samples_of(photos), "run", TreeJudge(load_trees()))
    assert (photos.parent / "run" / "predictions.jsonl").read_bytes() == held, "not one of its answers is kept"
    policy_server.calls_itself = {"model": "toy-2026-08", "system_fingerprint": "fp_2"}
    assert evaluate(server(policy_server), samples_of(photos), "run", TreeJudge(load_trees()))["finished"]
    served = [row.get("served", {}).get("system_fingerprint") for row in read_jsonl("run/predictions.jsonl")]
    assert served == ["fp_1", "fp_1", "fp_2", "fp_2"]


def test_what_a_server_may_change_is_only_told(policy_server, photos, caplog):
    policy_server.entry = {"root": "toys/policy", "created": 1}
    card = evaluate(server(policy_server), samples_of(photos), "run", TreeJudge(load_trees()))
    policy_server.entry = {"root": "toys/policy", "created": 2}
    assert evaluate(server(policy_server), samples_of(photos), "run", TreeJudge(load_trees())) == card
    assert caplog.messages == ["run: created was 1, is 2"]


def test_a_server_that_tells_nothing_or_is_down_does_not_stop_a_finished_run(policy_server, photos):
    policy_server.entry = {}
    card = evaluate(server(policy_server), samples_of(photos), "run", TreeJudge(load_trees()))
    assert "answered_by" not in card
    down = ServerEngine("policy", "http://127.0.0.1:9", retries=0, give_up_after=2)
    assert evaluate(down, samples_of(photos), "run", TreeJudge(load_trees())) == card


def test_a_run_from_before_is_gone_on_with_and_says_so(photos, caplog):
    engine, judge = TransformersEngine(load_policy("fieldguide-base", device="cpu")), TreeJudge(load_trees())
    card = evaluate(engine, samples_of(photos), "run", judge, how=SHORT)
    folder = photos.parent / "run"
    old = {name: value for name, value in card.items() if name != "answered_by"}
    (folder / "card.json").write_text(json.dumps(old))
    rows = [
        {name: value for name, value in row.items() if name not in ("file", "stat")}
        for row in read_jsonl(folder / "predictions.jsonl")
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert evaluate(engine, samples_of(photos), "run", judge, how=SHORT) == old
    assert caplog.messages == [
        "run: which model it began with is not recorded; that it is the same is taken on trust",
        "run/predictions.jsonl: what 4 pictures held is not recorded; that they are the same is taken on trust",
    ]


# What was shown


def test_other_pictures_under_the_old_names_are_another_run(photos):
    ok(*run(model="fieldguide-base"))
    held = files_of(photos.parent / "run")
    repaint(photos, 1, 3)
    line = refused(*run(model="fieldguide-base"))
    assert line.startswith(
        "run/predictions.jsonl holds answers, and 2 of 4 pictures are not those that were asked about (1.png: its "
        "bytes summed up to "
    ) and line.endswith(", ...); put the old ones back, or choose another --out")
    assert files_of(photos.parent / "run") == held


def test_other_pictures_are_noticed_before_the_rest_is_asked(policy_server, photos):
    policy_server.gone_after = 2
    with pytest.raises(UserError, match="is gone"):
        evaluate(server(policy_server), samples_of(photos), "run", TreeJudge(load_trees()))
    answered = [row["sample_id"] for row in read_jsonl("run/predictions.jsonl") if "error" not in row]
    policy_server.gone_after, calls = None, policy_server.calls
    repaint(photos, *(int(name[0]) for name in answered))
    with pytest.raises(UserError, match=f"{len(answered)} of 4 pictures are not those that were asked about"):
        evaluate(server(policy_server), samples_of(photos), "run", TreeJudge(load_trees()))
    assert policy_server.calls == calls


def test_a_mended_picture_is_asked_about_and_blocks_nothing(photos):
    (photos / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert "1 unreadable images" in ok(*run(model="fieldguide-base"))
    repaint(photos, 2)
    assert "0 unreadable images" in ok(*run(model="fieldguide-base"))


def test_only_files_that_were_touched_are_read_again(photos, monkeypatch):
    engine, judge = TransformersEngine(load_policy("fieldguide-base", device="cpu")), TreeJudge(load_trees())
    card = evaluate(engine, samples_of(photos), "run", judge, how=SHORT)
    read, digest = [], predict.file_digest
    monkeypatch.setattr(predict, "file_digest", lambda path: read.append(path.name) or digest(path))
    os.utime(photos / "1.png")
    assert evaluate(engine, samples_of(photos), "run", judge, how=SHORT) == card and read == ["1.png"]
    assert evaluate(engine, samples_of(photos), "run", judge, how=SHORT) == card and read == ["1.png"]


def test_pictures_in_memory_are_told_apart(tmp_path, photos):
    engine, judge = TransformersEngine(load_policy("fieldguide-base", device="cpu")), TreeJudge(load_trees())
    birds = plates("birds", "test", 2)
    evaluate(engine, birds, "run", judge, how=SHORT)
    evaluate(engine, birds, "run", judge, how=SHORT)
    birds[1] = Sample(birds[1].id, Image.fromarray(np.zeros((56, 56, 3), np.uint8)), birds[1].label, "birds")
    with pytest.raises(UserError, match="1 of 2 pictures are not those that were asked about"):
        evaluate(engine, birds, "run", judge, how=SHORT)


# Corrected labels


class Counting:
    "A judge that counts what it is asked."

    identity = "counting"

    def __init__(self):
        self.asked = []

    def __call__(self, pairs, datasets=None, done=None):
        self.asked += [label for label, _ in pairs]
        verdicts = [Verdict(Category.GENERIC, "counting")] * len(pairs)
        done(range(len(pairs)), verdicts)
        return verdicts


def test_a_corrected_label_keeps_the_answers(policy_server, photos, caplog):
    judge = Counting()
    evaluate(server(policy_server), samples_of(photos), "run", judge)
    calls, texts = policy_server.calls, [row["text"] for row in read_jsonl("run/predictions.jsonl")]
    judge.asked = []
    mended = samples_of(photos)
    mended[2] = Sample("2.png", photos / "2.png", "hooded warbler", "birds")
    card = evaluate(server(policy_server), mended, "run", judge)
    assert policy_server.calls == calls and judge.asked == ["hooded warbler"]
    assert caplog.messages == [
        "run: 1 of 4 samples were corrected (2.png: label was 'ovenbird', is 'hooded warbler'); their answers are kept"
    ]
    rows = list(read_jsonl("run/predictions.jsonl"))
    assert [row["text"] for row in rows] == texts and card["finished"]
    labels = ["ovenbird", "ovenbird", "hooded warbler", "ovenbird"]
    assert [row["label"] for row in rows] == labels == [row["label"] for row in read_samples("run")]
    assert [row["label"] for row in read_csv("run/verdicts.csv")[0]] == labels
    fresh = evaluate(server(policy_server), mended, "fresh", Counting())
    assert fresh == card and files_of(photos.parent / "fresh") == files_of(photos.parent / "run")


def test_a_label_corrected_in_the_middle_of_a_run(policy_server, photos):
    policy_server.gone_after = 2
    with pytest.raises(UserError, match="is gone"):
        evaluate(server(policy_server), samples_of(photos), "run", Counting())
    answers, policy_server.gone_after = policy_server.answers, None
    mended = samples_of(photos, "hooded warbler")
    card = evaluate(server(policy_server), mended, "run", Counting())
    assert policy_server.answers == 4 and answers == 2, "none is asked twice"
    assert card == evaluate(server(policy_server), mended, "fresh", Counting())


def test_other_samples_are_another_run_whatever_their_labels(photos):
    engine, judge = TransformersEngine(load_policy("fieldguide-base", device="cpu")), Counting()
    evaluate(engine, samples_of(photos), "run", judge, how=SHORT)
    samples = samples_of(photos)
    for other in (samples[::-1], samples[:3], [*samples[:3], Sample("x.png", photos / "3.png", "ovenbird", "birds")]):
        with pytest.raises(UserError, match="^run holds another run"):
            evaluate(engine, other, "run", judge, how=SHORT)


def test_the_command_says_what_was_corrected(photos, caplog):
    caplog.set_level(logging.WARNING)
    ok(*run(model="fieldguide-base"))
    label(photos, _0="hooded warbler")
    ok(*run(model="fieldguide-base"))
    assert "1 of 4 samples were corrected (0.png: label was 'ovenbird', is 'hooded warbler')" in caplog.text


def test_the_card_of_closed_questions_says_what_answered(photos):
    ok("closed", "--model", "fieldguide-base", "--data", "photos", "--out", "closed")
    told = json.loads((photos.parent / "closed/closed.card.json").read_text())["settings"]["answered_by"]
    assert told == policy_identity(str(PACKAGED["fieldguide-base"]))
