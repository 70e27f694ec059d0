"Embedded photographs: what a file of them holds, what is no such file, and the data sets that they are."

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from refusal import message

from speciarl.data.photographs import PHOTOGRAPHS, EmbeddedSet, is_embedded, photographs, read_embedded, write_embedded
from speciarl.data.trees import load_tree

TOLD = {"dataset": "oxford_pets", "network": "none", "weights": "w", "whitening": "p"}
BREEDS = ("pug", "beagle", "ragdoll")
PARTS = ("base", "train", "test")


def rows(side: int = 8, each: int = 2):
    "The arguments of `write_embedded` after the path: so many random pictures of each class in each split."
    names = [(breed, part, number) for breed in BREEDS for part in PARTS for number in range(each)]
    ids = [f"{breed}/{part}_{number}.jpg" for breed, part, number in names]
    pictures = np.random.default_rng(side).integers(0, 256, (len(names), side, side, 3), np.uint8)
    return [ids, [name for name, _, _ in names], [part for _, part, _ in names], pictures, TOLD]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("embedded") / "pets.parquet"
    write_embedded(path, *rows())
    return path


# A file


@pytest.mark.parametrize("side", [8, 16])
def test_what_is_written_is_read_without_loss(tmp_path, side):
    ids, labels, splits, pictures, told = rows(side)
    write_embedded(tmp_path / "a" / "b.parquet", ids, labels, splits, pictures, told)
    found = read_embedded(tmp_path / "a" / "b.parquet", load_tree("oxford_pets"))
    assert (list(found.ids), list(found.labels), list(found.splits)) == (ids, labels, splits)
    assert found.pictures.dtype == np.uint8 and np.array_equal(found.pictures, pictures)
    assert found.told == {**told, "side": side}
    table = parquet.read_table(tmp_path / "a" / "b.parquet")
    assert table.schema.field("picture").type == pa.binary(3 * side * side)
    assert table["picture"][0].as_py() == pictures[0].tobytes(), "row by row, as RGB"
    assert json.loads(table.schema.metadata[b"speciarl.embedded"])["side"] == side


def test_the_same_photographs_are_the_same_bytes(tmp_path, file):
    write_embedded(tmp_path / "again.parquet", *rows())
    assert (tmp_path / "again.parquet").read_bytes() == file.read_bytes()


def test_a_picture_that_is_a_view_of_others_is_written_as_it_looks(tmp_path):
    ids, labels, splits, pictures, told = rows()
    write_embedded(tmp_path / "a.parquet", ids, labels, splits, pictures[::-1, :, ::-1], told)
    assert np.array_equal(read_embedded(tmp_path / "a.parquet").pictures, pictures[::-1, :, ::-1])


def changed(place: int, value):
    "The arguments with one changed."
    given = rows()
    given[place] = value(given[place])
    return given


@pytest.mark.parametrize(
    "given, words",
    [
        (changed(0, lambda ids: ids[:-1]), "17 ids for 18 pictures"),
        (changed(0, lambda ids: [ids[1], *ids[1:]]), "the id 'pug/base_1.jpg' is there 2 times"),
        (changed(0, lambda ids: [*ids[:-1], None]), "photograph 18 has no id"),
        (changed(1, lambda labels: [" ", *labels[1:]]), "photograph 1 has no label"),
        (
            changed(2, lambda splits: ["val", *splits[1:]]),
            "a split 'val' (there are base, train, validation, test, all)",
        ),
        (changed(2, lambda splits: ["all", *splits[1:]]), "some photographs are of the split all"),
        (changed(3, lambda pictures: pictures / 255), "pictures of type float64 and shape (18, 8, 8, 3)"),
        (changed(3, lambda pictures: pictures.reshape(18, 192)), "and shape (18, 192)"),
        (changed(3, lambda pictures: pictures[:, :2, :2]), "pictures of 2 x 2 pixels, not 4 to 64"),
        (changed(3, lambda pictures: pictures[:0]), "no photograph"),
        (changed(4, lambda told: {**told, "weights": ""}), "nothing says its weights"),
        (changed(4, lambda told: {**told, "side": 16}), "pictures of side 8 that are said to be of side 16"),
    ],
)
def test_what_is_no_set_of_photographs_is_not_written(tmp_path, given, words):
    said = message(write_embedded, tmp_path / "a.parquet", *given)
    assert words in said and "not written" in said and list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, file):
    (tmp_path / "a.parquet").write_bytes(file.read_bytes())
    assert "not written" in message(write_embedded, tmp_path / "a.parquet", *changed(0, lambda ids: ids[1:]))
    assert (tmp_path / "a.parquet").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("size", [0, 3, 100, 0.5, -1])
def test_a_file_that_was_cut_off(tmp_path, file, size):
    data = file.read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[: int(size * len(data)) if isinstance(size, float) else size])
    assert "a.parquet" in message(read_embedded, tmp_path / "a.parquet")


def test_one_bent_bit_of_a_picture_is_found(tmp_path, file):
    data, picture = bytearray(file.read_bytes()), rows()[3][7].tobytes()
    data[data.index(picture[:16]) + 3] ^= 1
    (tmp_path / "a.parquet").write_bytes(data)
    assert "damaged" in message(read_embedded, tmp_path / "a.parquet")


def rewritten(file, path, change):
    table = change(parquet.read_table(file))
    parquet.write_table(table, path)
    return path


def header(table, told):
    text = told if isinstance(told, bytes) else json.dumps(told)
    return table.replace_schema_metadata({b"speciarl.embedded": text})


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda table: table.replace_schema_metadata({}), "no file of embedded photographs"),
        (lambda table: header(table, b"{"), "its header is damaged"),
        (lambda table: header(table, [8]), "its header is damaged"),
        (lambda table: header(table, {**TOLD, "side": "8"}), "its header is damaged"),
        (lambda table: header(table, {**TOLD, "side": 16}), "picture (fixed_size_binary[768])"),
        (lambda table: header(table, {**TOLD, "side": -8}), "not 4 to 64"),
        (lambda table: header(table, {"side": 8}), "nothing says its network"),
        (lambda table: table.drop_columns(["split"]), "its columns are not id (string), label (string)"),
        (lambda table: table.slice(0, 0), "no photograph"),
        (lambda table: pa.concat_tables([table, table]), "is there 2 times"),
        (lambda table: table.set_column(3, "picture", pa.nulls(18, pa.binary(192))), "photograph 1 has no picture"),
        (lambda table: table.set_column(0, "id", pa.nulls(18, pa.string())), "photograph 1 has no id"),
    ],
)
def test_a_table_that_is_no_such_file(tmp_path, file, change, words):
    assert words in message(read_embedded, rewritten(file, tmp_path / "a.parquet", change))


def test_labels_of_another_tree(file):
    assert read_embedded(file, load_tree("oxford_pets")).labels
    said = message(read_embedded, file, load_tree("flowers102"))
    assert "3 labels are no classes of flowers102 ('beagle', 'pug', 'ragdoll')" in said


def test_what_is_said_to_be_embedded(tmp_path, file):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    parquet.write_table(pa.table({"id": ["a"]}), tmp_path / "b.parquet")
    assert is_embedded(file) and is_embedded(str(file))
    for other in ("a.parquet", "b.parquet", "c.parquet", ""):
        assert not is_embedded(tmp_path / other)


# A data set


def test_splits_are_apart_and_in_the_order_of_the_file(file):
    ids, labels, splits, pictures, _ = rows()
    found = EmbeddedSet("pets", file)
    for part in PARTS:
        samples = found.samples(part)
        places = [i for i, own in enumerate(splits) if own == part]
        assert [sample.id for sample in samples] == [ids[i] for i in places]
        assert [sample.label for sample in samples] == [labels[i] for i in places]
        assert all(np.array_equal(np.asarray(sample.image), pictures[i]) for sample, i in zip(samples, places))
        assert {(sample.dataset, sample.split) for sample in samples} == {("oxford_pets", part)}
    assert [sample.id for sample in found.samples("all")] == ids
    assert found.samples("Testing") == found.samples(), "the usual names of a split"
    assert "no split 'validation'; it has base, train, test" in message(found.samples, "validation")


def test_draws_are_seeded(file):
    found, other = EmbeddedSet("pets", file), EmbeddedSet("pets", file, seed=1)
    drawn = found.draw("train", 4)
    assert drawn == EmbeddedSet("pets", file).draw("train", 4) == found.samples("train", 4)
    assert list(found.shuffled("train"))[:4] == drawn != other.draw("train", 4)
    assert "7 photographs of train are asked for and 6 are there; ask for fewer" in message(found.draw, "train", 7)
    taken = {sample.id for sample in drawn}
    left = found.held_out(9, taken)
    assert (
        len(left) == 2 and taken.isdisjoint(sample.id for sample in left) and {one.split for one in left} == {"train"}
    )
    assert found.held_out(0, taken) == [] and len(found.held_out(1, taken)) == 1


def test_what_is_held_out_is_of_validation_if_there_is_such_a_split(tmp_path):
    write_embedded(tmp_path / "a.parquet", *changed(2, lambda splits: ["validation", *splits[1:]]))
    assert [sample.split for sample in EmbeddedSet("a", tmp_path / "a.parquet").held_out(9, ())] == ["validation"]


def test_photographs_that_nobody_parted_are_all_meant(tmp_path):
    write_embedded(tmp_path / "a.parquet", *changed(2, lambda splits: ["all"] * len(splits)))
    found = EmbeddedSet("a", tmp_path / "a.parquet")
    assert len(found.samples("test")) == len(found.samples("train")) == len(found.samples("all")) == 18


def test_the_tree_of_a_file_of_ones_own(tmp_path, file):
    found = EmbeddedSet("pets", file)
    assert found.tree.dataset == "oxford_pets" and set(found.classes()) == set(BREEDS) and found.strict
    assert not (found.drawn or found.packaged or found.assets) and found.folder == file.parent
    write_embedded(tmp_path / "a.parquet", *changed(4, lambda told: {**told, "dataset": "nobody"}))
    assert "no labels.tree beside it" in message(EmbeddedSet("a", tmp_path / "a.parquet").samples)
    heads = "@dataset mine\n@title Mine\n@domain pet\n"
    (tmp_path / "labels.tree").write_text(f"{heads}pet\n  dog\n    * pug\n    * beagle\n", encoding="utf-8")
    assert "1 labels are no classes of mine ('ragdoll')" in message(EmbeddedSet("a", tmp_path / "a.parquet").samples)
    with (tmp_path / "labels.tree").open("a", encoding="utf-8") as tree:
        tree.write("  * ragdoll\n")
    assert {sample.dataset for sample in EmbeddedSet("a", tmp_path / "a.parquet").samples()} == {"mine"}


def test_a_name_that_the_package_does_not_have():
    assert "did you mean photo-birds? Else use one of photo-birds, photo-flowers" in message(photographs, "photo-bird")
    assert set(PHOTOGRAPHS) == {f"photo-{what}" for what in ("birds", "flowers", "food", "pets", "cars")}
