"Folders as people have them: by class, by split, with numbers in front, with the tables of others; to train on, too."

import json
import logging

import pytest
from PIL import Image
from refusal import message

import speciarl
from speciarl.data.sets import open_set, trees_of
from speciarl.data.splits import class_names, split_folders
from speciarl.training.plan import data_checks
from speciarl.training.recipe import load_recipe
from speciarl.training.settings import recipe_judge, recipe_set, training_samples, validation_samples

TREE = "@dataset mine\n@title Mine\n@domain dog\ndog\n  spitz\n    * samoyed\n  terrier\n    * westie\n"


def pictures(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(folder / name)
    return folder


def read(folder, split="test"):
    return [(sample.id, sample.label, sample.split) for sample in speciarl.read_data(str(folder), split)]


@pytest.mark.parametrize("name", ["image", "Image", "filename", "File_Name", "PATH", "filepath", "image_path", "FILE"])
def test_the_column_of_files_has_many_names(tmp_path, name):
    pictures(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "labels.csv").write_text(f"{name};LABEL\na.jpg;samoyed\nb.jpg;pug\n")
    assert read(tmp_path) == [("a.jpg", "samoyed", "test"), ("b.jpg", "pug", "test")]


def test_two_columns_that_may_be_the_files_are_refused(tmp_path):
    pictures(tmp_path, "a.jpg")
    (tmp_path / "labels.csv").write_text("image,path,label\n1,a.jpg,samoyed\n")
    told = message(speciarl.read_data, str(tmp_path))
    assert told.endswith("'image' and 'path' may both be the column 'file'; name it with --image-column, or add it")
    assert speciarl.read_data(str(tmp_path), columns={"image": "path"})[0].label == "samoyed"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_metadata_of_the_hub_are_labels(tmp_path, kind):
    pictures(tmp_path, "a.jpg", "sub/b.jpg")
    rows = [{"file_name": "a.jpg", "label": "samoyed"}, {"file_name": "sub/b.jpg", "label": "pug"}]
    text = {
        "csv": "file_name,label\na.jpg,samoyed\nsub/b.jpg,pug\n",
        "jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "json": json.dumps(rows),
    }[kind]
    (tmp_path / f"metadata.{kind}").write_text(text)
    assert read(tmp_path) == [("a.jpg", "samoyed", "test"), ("sub/b.jpg", "pug", "test")]
    (tmp_path / "labels.csv").write_text("file,label\na.jpg,westie\nsub/b.jpg,pug\n")
    assert read(tmp_path)[0][1] == "westie", "what is called labels is meant"


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "VALID", "testing"), ("train", "dev", "test")]
)
def test_splits_lie_above_the_classes(tmp_path, names):
    for name in names:
        pictures(tmp_path / name, f"pug/{name}.jpg", "samoyed/1.jpg")
    train, validation, test = names
    assert sorted(split_folders(tmp_path)) == ["test", "train", "validation"]
    assert read(tmp_path) == [(f"{test}/pug/{test}.jpg", "pug", test), (f"{test}/samoyed/1.jpg", "samoyed", test)]
    assert {split for _, _, split in read(tmp_path, "val")} == {split for _, _, split in read(tmp_path, validation)}
    assert len(read(tmp_path, "all")) == 6 and {split for _, _, split in read(tmp_path, "train")} == {train}


def test_a_split_that_is_not_there_is_refused(tmp_path):
    pictures(tmp_path, "train/pug/1.jpg", "train/samoyed/1.jpg", "val/pug/2.jpg", "val/samoyed/2.jpg")
    assert message(read, tmp_path) == f"{tmp_path}: no split 'test'; it has train and val, or give all"
    pictures(tmp_path, "dev/pug/1.jpg", "dev/samoyed/1.jpg")
    assert message(read, tmp_path).endswith("dev and val may both be the split validation; keep one")


def test_words_for_splits_are_no_classes(tmp_path):
    flat = pictures(tmp_path / "flat", "train/1.jpg", "test/1.jpg")
    assert "neither labels.csv" in message(read, flat)
    vehicles = pictures(tmp_path / "vehicles", "train/1.jpg", "car/1.jpg")
    assert {label for _, label, _ in read(vehicles)} == {"train", "car"}


def test_each_split_may_have_its_table(tmp_path):
    for name in ("train", "test"):
        pictures(tmp_path / name, "a.jpg")
        (tmp_path / name / "metadata.csv").write_text(f"file_name,label\na.jpg,{name} dog\n")
    assert read(tmp_path) == [("test/a.jpg", "test dog", "test")]
    assert read(tmp_path, "train") == [("train/a.jpg", "train dog", "train")]


@pytest.mark.parametrize(
    "folders, labels",
    [
        (["001.Black_footed_Albatross", "002.Laysan_Albatross"], ["Black footed Albatross", "Laysan Albatross"]),
        (["n02085620-Chihuahua", "n02085782-Japanese_spaniel"], ["Chihuahua", "Japanese spaniel"]),
        (["0_pug", "12_West_Highland_terrier"], ["pug", "West Highland terrier"]),
        (["707", "737-300"], None),
        (["3_Series", "5_Series"], None),
        (["1.pug", "samoyed"], None),
        (["pug_dog", "samoyed"], None),
    ],
)
def test_numbers_in_front_of_all_classes_are_no_part_of_their_names(tmp_path, caplog, folders, labels):
    pictures(tmp_path, *(f"{name}/1.jpg" for name in folders))
    with caplog.at_level(logging.WARNING):
        assert [label for _, label, _ in read(tmp_path)] == (labels or folders)
    assert list(class_names(folders).values()) == (labels or folders)
    assert ("classes are named without the numbers" in caplog.text) is bool(labels)


def test_under_the_name_of_a_benchmark_classes_are_found_in_splits_too(tmp_path):
    pictures(tmp_path, *(f"{split}/{name}/1.jpg" for split in ("train", "val") for name in ("Samoyed", "Pug")))
    found = open_set(f"oxford_pets={tmp_path}").samples("val")
    assert [(s.label, s.dataset, s.split) for s in found] == [
        ("pug", "oxford_pets", "val"),
        ("samoyed", "oxford_pets", "val"),
    ]


@pytest.fixture
def own(tmp_path, monkeypatch):
    "Eight training pictures and four held out, called by a relative path with a dot in it."
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        pictures(tmp_path / "my.dogs", f"train/samoyed/{i}.png", f"train/westie/{i}.png")
    pictures(tmp_path / "my.dogs", *(f"val/{name}/{i}.png" for name in ("samoyed", "westie") for i in "ab"))
    return "my.dogs"


def test_a_recipe_trains_on_a_folder(own, tmp_path):
    recipe = load_recipe("smoke/speciarl", [f"data={{{own}: 6}}", "validation_images=4"])
    samples = training_samples(recipe)
    assert (
        len(samples) == 6 and {sample.split for sample in samples} == {"train"} and samples == training_samples(recipe)
    )
    held_out = validation_samples(recipe, samples)
    assert len(held_out) == 4 and {sample.split for sample in held_out} == {"val"}
    assert [verdict.category.wire for verdict in recipe_judge(recipe)([("samoyed", "dog")], [None])] == ["generic"]
    assert [check.holds for check in data_checks(recipe, None)] == [True]
    both = load_recipe("smoke/speciarl", [f"data.{own}=9", "data.birds=5"])
    assert both.data == {"birds": 5, own: 9}
    assert message(training_samples, both) == f"{own}: 9 pictures are asked for and 8 are there; ask for fewer"
    assert [check.holds for check in data_checks(both, None)] == [False]


def test_a_folder_without_splits_holds_out_what_is_left(tmp_path):
    pictures(tmp_path, *(f"{name}/{i}.png" for name in ("samoyed", "westie") for i in range(4)))
    recipe = load_recipe("smoke/speciarl", [f"data={{{tmp_path}: 6}}", "validation_images=9"])
    samples = training_samples(recipe)
    held_out = validation_samples(recipe, samples)
    assert len(held_out) == 2 and not {s.id for s in held_out} & {s.id for s in samples}
    shots = load_recipe("smoke/speciarl", [f"data={{{tmp_path}: 4}}", "shots=2"])
    assert sorted(s.label for s in training_samples(shots)) == ["samoyed"] * 2 + ["westie"] * 2


def test_a_tree_beside_the_pictures_judges_them(own, tmp_path):
    recipe = load_recipe("smoke/speciarl", [f"data={{{own}: 6}}"])
    (tmp_path / own / "labels.tree").write_text(TREE)
    assert {sample.dataset for sample in training_samples(recipe)} == {"mine"} and "mine" in trees_of([own])
    verdicts = recipe_judge(recipe)([("westie", "terrier"), ("westie", "samoyed")], ["mine", "mine"])
    assert [verdict.category.wire for verdict in verdicts] == ["less specific", "wrong"]
    (tmp_path / own / "labels.tree").write_text(TREE.replace("mine", "birds"))
    assert "a packaged tree is called @dataset birds" in message(recipe_judge, recipe)


def test_a_path_that_is_no_folder_is_no_data_set(tmp_path):
    recipe = load_recipe("smoke/speciarl", ["data={./nowhere: 6}"])
    told = message(training_samples, recipe)
    assert told.startswith("no data set './nowhere': use the path of a folder of images with labels.csv, one of ")
    (tmp_path / "empty").mkdir()
    assert "neither labels.csv" in message(recipe_set, recipe, str(tmp_path / "empty"), None)
