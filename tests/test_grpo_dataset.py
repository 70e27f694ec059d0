"The training set of the reward, made of what people have: a folder, a frame, a file, a data set's name."

import logging

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

import speciarl
from speciarl import UserError

LABELS = ["Hooded Warbler", "beagle", "pug"]
FILES = ["a.png", "b.png", "c.png"]


@pytest.fixture
def folder(tmp_path):
    for name, shade in zip(FILES, ("red", "green", "blue")):
        Image.new("RGB", (64, 48), shade).save(tmp_path / name)
    return tmp_path


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("speciarl")]


def check(made, uids=FILES):
    assert [row["uid"] for row in made] == uids and [row["label"] for row in made] == LABELS
    for row in made:
        [message] = row["prompt"]
        assert message["role"] == "user" and "<answer> </answer>" in message["content"]
        assert row["image"].size == (64, 48) and row["image"].mode == "RGB"


def test_a_folder_with_a_table_of_labels(folder, caplog):
    rows = "".join(f"{file},{label}\n" for file, label in zip(FILES, LABELS))
    (folder / "labels.csv").write_text("file,label\n" + rows)
    made = speciarl.grpo_dataset(folder)
    check(made)
    assert made.column_names == ["prompt", "image", "label", "uid"] and told(caplog) == []
    check(speciarl.grpo_dataset(folder / "labels.csv"))  # whose names are relative to it


def test_a_folder_for_each_class(folder):
    for label, name in zip(("beagle", "pug"), FILES):
        (folder / "dogs" / label).mkdir(parents=True)
        (folder / name).rename(folder / "dogs" / label / name)
    made = speciarl.grpo_dataset(f"oxford_pets={folder / 'dogs'}")
    found = [(row["uid"], row["label"], row["dataset"]) for row in made]
    assert found == [("beagle/a.png", "beagle", "oxford_pets"), ("pug/b.png", "pug", "oxford_pets")]
    with pytest.raises(UserError, match="uid_column= and label_names= are for a table"):
        speciarl.grpo_dataset(folder / "dogs", label_names=["beagle", "pug"])


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.Table.from_pydict])
def test_a_frame_that_names_pictures(folder, make):
    frame = make({"image": FILES, "label": LABELS, "dataset": ["cub200", "oxford_pets", "oxford_pets"]})
    made = speciarl.grpo_dataset(frame, images=folder)
    check(made)
    assert [row["dataset"] for row in made] == ["cub200", "oxford_pets", "oxford_pets"]


def test_a_list_that_holds_pictures_in_every_way(folder, monkeypatch):
    monkeypatch.chdir(folder)
    pictures = [Image.open("a.png"), (folder / "b.png").read_bytes(), {"bytes": None, "path": "c.png"}]
    rows = [{"image": picture, "label": label} for picture, label in zip(pictures, LABELS)]
    made = speciarl.grpo_dataset(rows)
    assert made[0]["image"].getpixel((0, 0)) == (255, 0, 0)
    monkeypatch.chdir("/")
    assert made[2]["image"].getpixel((0, 0)) == (0, 0, 255)
    check(made, ["row 1", "row 2", made[2]["uid"]])


def test_other_columns_keys_and_names_of_classes(folder):
    frame = pd.DataFrame({"path": FILES, "class": [2, 0, 1], "key": [7, 8, 9]})
    columns = dict(image_column="path", label_column="class", uid_column="key")
    names = ["beagle", "pug", "Hooded Warbler"]
    check(speciarl.grpo_dataset(frame, images=folder, label_names=names, **columns), ["7", "8", "9"])
    with pytest.raises(UserError, match="row 1: '2' is the number of a class; say with label_names="):
        speciarl.grpo_dataset(frame, images=folder, **columns)


def test_a_picture_that_is_there_twice_has_two_keys(folder):
    frame = pd.DataFrame({"image": ["a.png", "a.png"], "label": ["pug", "pug"]})
    assert list(speciarl.grpo_dataset(frame, images=folder)["uid"]) == ["a.png", "a.png (row 2)"]
    with pytest.raises(UserError, match="row 2: uid 'k' is empty or there twice"):
        speciarl.grpo_dataset(frame.assign(uid="k"), images=folder)


def test_what_is_left_out_is_told_in_a_line_each(folder, caplog):
    (folder / "broken.png").write_bytes(b"no picture")
    frame = pd.DataFrame(
        {
            "image": [*FILES, "d.png", None, "broken.png"],
            "label": ["Hooded Warbler", "beagle", "fly agarick", float("nan"), "pug", "pug"],
        }
    )
    made = speciarl.grpo_dataset(frame, images=folder)
    assert list(made["uid"]) == FILES
    rows, pictures, labels = told(caplog)
    assert rows == "the table: 2 of 6 rows left out: 1 without a picture (row 5), 1 without a label (row 4)"
    assert pictures.startswith("1 of 4 pictures are left out: ") and "broken.png: the image is corrupt" in pictures
    assert labels.startswith("1 of 3 labels are in no label tree (label 'fly agarick' is no class of any tree; ")
    assert labels.endswith("give it with dataset=FILE.tree, or let a language model judge")
    assert not any("\n" in line for line in told(caplog))


def test_a_tree_of_ones_own_knows_the_labels(folder, caplog):
    tree = folder / "mushrooms.tree"
    tree.write_text("@dataset mushrooms\n@title Mushrooms\n@domain mushroom\nmushroom\n  agaric\n    * fly agaric\n")
    rows = [{"image": "a.png", "label": "fly agaric"}]
    speciarl.grpo_dataset(rows, images=folder, dataset=str(tree))
    assert told(caplog) == []
    speciarl.grpo_dataset([{**rows[0], "dataset": "inat30"}], images=folder)
    assert told(caplog)[0].startswith("1 of 1 labels are in no label tree (there is no label tree 'inat30')")


def test_plates_of_the_field_guide():
    made = speciarl.grpo_dataset("birds", prompt="specific", limit=3)
    assert len(made) == 3 and made[0]["dataset"] == "birds" and made[0]["image"].size == (56, 56)
    assert made[0]["uid"].startswith("birds-train-") and "specific" in made[0]["prompt"][0]["content"]


def test_pictures_are_bounded_and_turned(folder):
    large = Image.new("RGB", (1200, 600))
    turned = large.getexif()
    turned[0x0112] = 6
    large.save(folder / "large.jpg", exif=turned)
    rows = [{"image": "large.jpg", "label": "pug"}]
    [row] = speciarl.grpo_dataset(rows, images=folder, max_pixels=100_000)
    assert row["image"].width < row["image"].height and row["image"].width * row["image"].height <= 100_000


@pytest.mark.parametrize(
    "source, options, message",
    [
        ([("a.png", "pug")], {}, "a table is wanted"),
        (
            [{"image": "a.png"}],
            {},
            "the table: no column 'label' (found 'image'); name it with label_column=, or add it",
        ),
        ([{"label": "pug"}], {}, "the table: no column 'image' (found 'label'); name it with image_column=, or add it"),
        ([{"image": "a.png", "label": None}], {}, "no row is left: 1 without a label (row 1)"),
        ([{"image": 3.5, "label": "pug"}], {}, "row 1, column 'image': float '3.5' is no picture"),
        ([{"image": b"none", "label": "pug"}], {}, "row 1, column 'image': bytes that are no image"),
        ([{"image": "lost.png", "label": "pug"}], {}, "not one of the 1 pictures can be opened (the first: "),
        ("no_such_folder", {}, "no data set 'no_such_folder' and no such folder"),
        ([{"image": "a.png", "label": "pug"}], {"prompt": "openworld/base"}, "must ask for the answer inside <answer>"),
        ([], {}, "the table: no rows in it"),
    ],
)
def test_what_makes_no_training_set_is_told_in_one_line(folder, source, options, message):
    with pytest.raises(UserError) as caught:
        speciarl.grpo_dataset(source, images=folder, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture(autouse=True)
def heard(caplog):
    caplog.set_level(logging.WARNING)
