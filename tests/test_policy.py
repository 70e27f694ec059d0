"Loading policies: what is packaged is what the card says, and a broken folder is one clear line."

import shutil

import pytest
import torch
from tiny_models import save

from speciarl.core.files import weights_digest
from speciarl.core.scale import UserError
from speciarl.policy.model import PACKAGED, base_card, load_policy

BASE = PACKAGED["fieldguide-base"]


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(BASE, tmp_path / "policy")


def test_the_packaged_base_is_the_one_of_its_card():
    card = base_card()
    assert (
        weights_digest(BASE) == card["sha256"]
        and (BASE / "model.safetensors").stat().st_size == card["bytes"] <= 6_000_000
    )
    assert sum(p.numel() for p in load_policy("fieldguide-base").model.parameters()) == card["parameters"] <= 3_000_000
    assert load_policy("fieldguide-base").model.__class__.__name__ == "Qwen2_5_VLForConditionalGeneration"


def test_only_safetensors_and_json_are_packaged():
    assert {path.suffix for path in BASE.iterdir()} <= {".safetensors", ".json", ".jinja", ".md"}


def test_a_folder_without_processor(copy):
    (copy / "preprocessor_config.json").unlink()
    (copy / "tokenizer.json").unlink()
    with pytest.raises(UserError) as error:
        load_policy(copy)
    assert (
        str(error.value)
        == f"{copy}: the folder has no image processor (preprocessor_config.json), no tokenizer (tokenizer.json); "
        "save model and processor there with save_pretrained"
    )


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, None])
def test_broken_weights(copy, content):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(UserError, match="cannot load policy .*") as error:
        load_policy(copy)
    assert "\n" not in str(error.value)


def test_pickled_weights_are_not_read(copy):
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot load policy"):
        load_policy(copy)


@pytest.mark.parametrize("name", ["fieldguide-bas", "/nowhere/at/all", "./absent"])
def test_no_such_policy(name):
    with pytest.raises(
        UserError, match="^no policy .*: give fieldguide-base or photo-base, a folder with a saved model, or a hub id"
    ):
        load_policy(name)


def test_saving_and_loading_changes_nothing(tmp_path):
    policy = load_policy("fieldguide-base")
    again = load_policy(policy.save(tmp_path / "again"))
    assert all(torch.equal(a, b) for a, b in zip(policy.model.state_dict().values(), again.model.state_dict().values()))
    assert (
        again.processor.tokenizer("a hooded warbler").input_ids
        == policy.processor.tokenizer("a hooded warbler").input_ids
    )


def test_a_model_that_sees_nothing(tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    Qwen2ForCausalLM(config).save_pretrained(tmp_path)
    for name in ("preprocessor_config.json", "tokenizer.json"):
        shutil.copy(BASE / name, tmp_path)
    with pytest.raises(UserError) as error:
        load_policy(tmp_path)
    assert (
        str(error.value)
        == f"{tmp_path}: a model of type qwen2 does not answer questions about images; give a vision-language model"
    )


def test_a_package_that_a_family_wants_is_named(tmp_path, monkeypatch):
    import transformers.models.smolvlm.processing_smolvlm as smolvlm

    monkeypatch.setattr(smolvlm, "num2words", None)
    with pytest.raises(
        UserError,
        match="^cannot load policy .*: Package `num2words` is required to run SmolVLM processor. Install it with "
        "`pip install num2words`",
    ):
        load_policy(save("smolvlm", tmp_path))


def test_a_folder_saved_whole_by_transformers(tmp_path):
    policy = load_policy(save("gemma3", tmp_path), device="cpu")
    (tmp_path / "preprocessor_config.json").unlink()
    policy.processor.save_pretrained(tmp_path)
    again = load_policy(tmp_path, device="cpu").processor
    assert (
        again.image_seq_length == 4
        and again.image_processor.size == policy.processor.image_processor.size
        and again.chat_template == policy.processor.chat_template
    )
