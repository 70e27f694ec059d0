"""Every paper recipe draws its own data block, at its full counts, from layouts of the official sizes (with one picture
under all names), and no image that the paper profile tests on is trained on."""

import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import layouts
import pytest
from layouts import build, plan
from refusal import message

from speciarl.compendium.compute import Instruments
from speciarl.compendium.profile import Design, load_profile
from speciarl.core.config import available
from speciarl.data.benchmarks import DATASETS, released_split
from speciarl.data.sets import named_set
from speciarl.data.splits import read_split
from speciarl.training.recipe import Recipe, load_recipe
from speciarl.training.settings import training_samples, validation_samples

RECIPES = {name: load_recipe(name) for name in available("recipes") if name.startswith("paper/")}
COOP = {name: info for name, info in DATASETS.items() if info.released == "coop"}


class Stub:
    "Writes lists as they are and every picture as a link to one, of which a file system allows some thousands."

    def __init__(self, folder: Path):
        self.folder, self.links, self.known = folder, 0, set()

    def __call__(self, path: Path, content: str | bytes | None = None) -> None:
        if path.parent not in self.known:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.known.add(path.parent)
        if content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            return
        if self.links % 30000 == 0:
            self.picture = self.folder / f"picture{self.links}.jpg"
            self.picture.write_bytes(layouts.jpeg())
        self.links += 1
        os.link(self.picture, path)


def official(name: str) -> dict[str, int]:
    return {split: DATASETS[name].splits[split] for split in layouts.SPLITS[name]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    "A folder `data` of the seven sets as large as they are, and its checkout; nobody's CoOp list in it."
    root = tmp_path_factory.mktemp("checkout")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "put", Stub(root))
        for name in DATASETS:
            build(name, root / "data" / name, plan(name, official(name)))
    yield root / "data"
    shutil.rmtree(root)  # a few hundred thousand names are not left behind


@pytest.fixture(scope="module")
def tested(data):
    "The ids of the images that the paper profile tests on, by data set."
    design = Design(load_profile("paper"))
    asked = Instruments(design, data.parent)
    return {name: asked.samples(design.job("SpeciaRL", 0, name)) for name in design.domains}


def drawn(recipe: Recipe) -> str:
    "What decides which images a recipe takes: many recipes take the same."
    keys = {"data", "splits", "subset_seed", "classes", "shots", "validation_images"}
    return recipe.model_dump_json(include=keys)


@pytest.mark.parametrize("name", {drawn(recipe): name for name, recipe in RECIPES.items()}.values())
def test_a_recipe_finds_all_the_images_that_it_names(name, data, tested):
    recipe = RECIPES[name]
    samples = training_samples(recipe, data)
    assert Counter(sample.dataset for sample in samples) == recipe.data
    assert len({(sample.dataset, sample.id) for sample in samples}) == recipe.images
    held_out = validation_samples(recipe, samples, data)
    assert len(held_out) == recipe.validation_images
    seen = {(sample.dataset, sample.id) for sample in [*samples, *held_out]}
    assert len(seen) == recipe.images + recipe.validation_images, "what is held out is not trained on"
    assert seen.isdisjoint((dataset, one.id) for dataset, found in tested.items() for one in found)
    for sample in samples:
        assert sample.split == released_split(sample.dataset, data / sample.dataset, "train")


def test_recipe_and_profile_mean_the_same_splits():
    profile = load_profile("paper")
    assert {recipe.splits for recipe in RECIPES.values()} == {profile.splits} == {"released"}
    assert {load_profile(name).splits for name in ("laptop", "smoke")} == {"official"}


def test_the_profile_tests_on_the_released_splits(tested):
    for name, found in tested.items():
        assert {sample.split for sample in found} == {"shares-test" if name in COOP else "test"}
    assert {name: len(found) for name, found in tested.items()} == {
        "cub200": 5794,
        "flowers102": 2463,
        "food101": 30300,
        "oxford_pets": 3669,
        "stanford_cars": 8041,
        "fgvc_aircraft": 3333,
    }


@pytest.mark.parametrize("name", COOP)
def test_shares_have_the_sizes_of_coops(name, data):
    parts = {part: read_split(name, data / name, f"shares-{part}") for part in ("train", "val", "test")}
    for part, size in COOP[name].coop.items():
        counts = Counter(sample.label for sample in parts[part])
        assert len(parts[part]) == size and len(counts) == COOP[name].classes
        assert max(counts.values()) - min(counts.values()) <= 2, "classes of one size give as many"
    ids = [sample.id for found in parts.values() for sample in found]
    assert len(set(ids)) == len(ids) == sum(official(name).values())
    assert parts["train"] == read_split(name, data / name, "shares-train"), "drawn with a seed"


def miniature(folder: Path) -> Path:
    "Pets of three breeds, with a CoOp list that parts them otherwise than shares would."
    build(
        "oxford_pets", folder, plan("oxford_pets", {"trainval": 12, "test": 3}, layouts.classes_of("oxford_pets")[:3])
    )
    rows = {split: read_split("oxford_pets", folder, split) for split in ("trainval", "test")}
    parts = {"train": rows["trainval"][6:], "val": rows["trainval"][:6], "test": rows["test"]}
    listed = {part: [[Path(one.id).name, 0, one.label] for one in found] for part, found in parts.items()}
    (folder / "split_zhou_OxfordPets.json").write_text(json.dumps(listed))
    return folder


def test_a_list_of_coops_is_used_where_it_lies(tmp_path, caplog):
    folder = miniature(tmp_path / "oxford_pets")
    found = replace(named_set("oxford_pets", tmp_path), splits="released")
    train = found.draw("train", 6)
    assert sorted(one.id for one in train) == sorted(one.id for one in read_split("oxford_pets", folder, "coop-train"))
    assert {one.split for one in found.samples("test")} == {"coop-test"} and not caplog.text
    held = found.held_out(4, {one.id for one in train})
    assert len(held) == 4 and {one.split for one in held} == {"coop-val"}
    (folder / "split_zhou_OxfordPets.json").unlink()
    assert len(found.draw("train", 9)) == 9 and "parted with CoOp's shares, not as CoOp did" in caplog.text
    assert {one.split for one in named_set("oxford_pets", tmp_path).samples("train")} == {"trainval"}, (
        "official, unless"
    )


def test_a_list_changes_the_keys_of_what_it_decides(tmp_path):
    from speciarl.compendium.lab import Lab

    def keys() -> dict[str, str]:
        lab = Lab("paper", tmp_path, workers=0)
        jobs = [lab.design.job("zero-shot", 0, name, "predictions") for name in lab.design.domains]
        return {job.domain: lab.keys.name(job) for job in [*jobs, lab.design.job("domain_pets")]}

    before = keys()
    miniature(tmp_path / "data/oxford_pets")
    after = keys()
    assert {name for name in after if after[name] != before[name]} == {"oxford_pets", ""}, "answers and a training"


def test_a_copy_from_the_hub_is_not_parted(tmp_path):
    folder = tmp_path / "flowers102"
    folder.mkdir()
    (folder / "hub.json").write_text(json.dumps({"dataset": "flowers102", "repo": "x", "split": "train"}))
    found = named_set("flowers102", tmp_path)
    assert message(replace(found, splits="released").draw, "train", 1).startswith(
        f"{folder}: no flowers102 here (looked"
    )
