"Embedded photographs: what a file of them holds, what is no such file, and the data sets that they are."

import json

import numpy as np
import pyarrow as pa
import pytest
from command_line import ok
from pyarrow import parquet
from refusal import message

from speciarl.cli.training import train_words
from speciarl.compendium.artefacts import Answered, Keys, Published, data_facts, write_published
from speciarl.compendium.compute import Instruments
from speciarl.compendium.profile import Design, Job, load_profile
from speciarl.core.config import ASSETS
from speciarl.core.files import file_digest, read_csv
from speciarl.data.photographs import PHOTOGRAPHS, EmbeddedSet, is_embedded, photographs, read_embedded, write_embedded
from speciarl.data.sets import all_strict, classes_in, domains_of, named_set, open_set, read_data, trees_of
from speciarl.data.trees import load_tree
from speciarl.judges.tree import TreeJudge
from speciarl.policy.predictions import Predictions, to_table, write_predictions
from speciarl.report.asking import asked_samples, own_tree
from speciarl.training.plan import data_checks
from speciarl.training.recipe import load_recipe
from speciarl.training.settings import recipe_judge, training_samples, validation_samples

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


# Those of the package


@pytest.mark.parametrize("name, benchmark", PHOTOGRAPHS.items())
def test_the_photographs_of_the_package(name, benchmark):
    found = photographs(name)
    read = read_embedded(found.path, load_tree(benchmark))
    assert set(read.labels) == set(load_tree(benchmark).classes()) == set(found.classes())
    assert len(set(read.ids)) == len(read.ids) and set(read.splits) == set(found.sizes()) == set(PARTS)
    assert read.told["dataset"] == benchmark and read.pictures.shape[1:] == (8, 8, 3)
    assert read.told["whitening"] == file_digest(ASSETS / "photographs" / "whitening.safetensors")
    assert found.samples(limit=5) == photographs(name).samples(limit=5), "drawn with a seed"
    card = (ASSETS / "photographs" / "README.md").read_text(encoding="utf-8")
    row = next(line for line in card.splitlines() if line.startswith(f"| `{name}.parquet`"))
    assert all(f"| {size:,} |" in row for size in (len(read.ids), *found.sizes().values())), "the card counts right"


def test_they_are_small_enough_to_travel_and_all_named():
    files = list((ASSETS / "photographs").iterdir())
    assert sum(path.stat().st_size for path in files) < 8_000_000
    assert {path.stem for path in files if path.suffix == ".parquet"} == set(PHOTOGRAPHS)


# By name and by file


def test_photographs_are_a_data_set_like_any_other(tmp_path):
    [birds, named] = [open_set("photo-birds"), named_set("photo-birds", tmp_path)]
    assert birds == named == photographs("photo-birds") and named_set("photo-birds", subset_seed=7).seed == 7
    assert trees_of(["photo-birds", "photo-pets"]) == {name: load_tree(name) for name in ("cub200", "oxford_pets")}
    assert all_strict(["photo-birds", "birds"]) and not all_strict(["photo-birds", "cub200"])
    assert classes_in("photo-pets") == classes_in("oxford_pets") and domains_of(["photo-pets"]) == ["pet"]
    assert [sample.dataset for sample in read_data("photo-cars", limit=2)] == ["stanford_cars"] * 2


def test_a_file_of_ones_own_is_a_data_set(tmp_path, file):
    found = open_set(str(file))
    assert len(found.samples("train")) == 6 and found.samples() == named_set("pets.parquet", file.parent).samples()
    assert read_data(f"mine={file}", limit=1)[0].dataset == "oxford_pets"
    assert "no data set 'none.parquet'" in message(open_set, "none.parquet")
    parquet.write_table(pa.table({"image": ["a.png"], "label": ["pug"]}), tmp_path / "table.parquet")
    assert "no file of embedded photographs" in message(read_data, str(tmp_path / "table.parquet"))
    assert asked_samples(file, limit=2) == found.samples(limit=2), "no table of images and labels"
    assert [sample.id for sample in asked_samples(tmp_path / "table.parquet")] == ["a.png"]


def test_the_tree_beside_a_file_of_ones_own_judges(tmp_path, file):
    (tmp_path / "a.parquet").write_bytes(file.read_bytes())
    assert own_tree(None, tmp_path / "a.parquet") is None
    (tmp_path / "labels.tree").write_text(
        "@dataset mine\n@title Mine\n@domain pet\npet\n  * pug\n  * beagle\n  * ragdoll\n", encoding="utf-8"
    )
    assert own_tree(None, tmp_path / "a.parquet") == str(tmp_path / "labels.tree")
    assert list(trees_of(["a.parquet"], tmp_path)) == ["mine"]


# Training and measuring


@pytest.fixture
def recipe():
    few = {"data": {"photo-birds": 12}, "validation_images": 4}
    return load_recipe("smoke/sft").model_copy(update=few)


def test_a_recipe_trains_on_photographs(recipe):
    samples = training_samples(recipe)
    assert samples == photographs("photo-birds").draw("train", 12)
    held_out = validation_samples(recipe, samples)
    assert len(held_out) == 4 and {sample.id for sample in held_out}.isdisjoint(sample.id for sample in samples)
    assert [check.holds for check in data_checks(recipe, None)] == [True]
    assert [check.holds for check in data_checks(recipe.model_copy(update={"data": {"photo-birds": 9999}}), None)] == [
        False
    ]
    assert train_words(recipe, "mine") == ["mine", "--out", "RUN"], "nobody has to say where they lie"


def test_the_judge_of_photographs_is_that_of_the_benchmark_and_strict(recipe):
    strict = TreeJudge({"cub200": load_tree("cub200")}, strict=True)
    assert recipe_judge(recipe).identity == strict.identity


@pytest.fixture
def design():
    profile = load_profile("smoke")
    return Design(profile.model_copy(update={"data": {"birds": ["photo-birds", "photo-pets"]}, "sizes": {}}))


def test_a_profile_tests_on_photographs(design, tmp_path):
    job = Job("predictions", "base", 0, "photo-birds", "general", 1, 5)
    tools = Instruments(design, tmp_path)
    assert tools.samples(job) == photographs("photo-birds").samples("test", 5)
    assert set(trees_of(design.domains)) == {"cub200", "oxford_pets"}
    keys = Keys(design, tmp_path)
    assert keys.steps(job) == ["sample"] and "root" not in keys.key(job)["inputs"]
    facts = data_facts("photo-birds", design.profile, tmp_path)
    assert set(facts) == {"names", "photographs"} and facts != data_facts("photo-pets", design.profile, tmp_path)


def test_a_file_of_ones_own_counts_by_its_bytes(design, tmp_path, file):
    profile = design.profile.model_copy(update={"data_root": str(file.parent)})
    assert data_facts("pets.parquet", profile, tmp_path) == {"files": file_digest(file), "root": str(file.parent)}


def answered(folder, domain, dataset):
    "One answer about a photograph, to be published."
    row = {"sample_id": "1", "dataset": dataset, "split": "test", "label": "x", "prompt": "general", "rollout": 0}
    path = folder / f"{domain}.parquet"
    write_predictions(path, Predictions({}, to_table([{**row, "text": domain, "answer": domain}])))
    return Answered(Job("predictions", "base", 0, domain, "general", 1, 5), {"inputs": domain}, path, None)


def test_published_answers_about_photographs_are_found_again(tmp_path):
    pairs = {"photo-birds": "cub200", "photo-pets": "oxford_pets", "cars": "cars"}
    answers = [answered(tmp_path, domain, dataset) for domain, dataset in pairs.items()]
    assert len(write_published(answers, [], tmp_path / "published")) == 2, "one file for all data sets, and the logs"
    published = Published(tmp_path / "published")
    for answer in answers:
        entry, table = published.read(answer.job)
        assert table["answer"].to_pylist() == [answer.job.domain]
        assert ("datasets" in entry) == (answer.job.domain != "cars"), "what was published before stays as it was"


def test_answers_about_one_benchmark_by_two_names_cannot_be_told_apart(tmp_path):
    both = [answered(tmp_path, "photo-birds", "cub200"), answered(tmp_path, "cub200", "cub200")]
    assert "two data sets of the profile are both cub200" in message(write_published, both, [], tmp_path / "published")


def test_a_small_policy_is_asked_about_photographs(tmp_path):
    ok("evaluate", "--model", "fieldguide-base", "--data", "photo-birds", "--limit", 5, "--out", tmp_path / "run")
    rows = read_csv(tmp_path / "run" / "verdicts.csv", ())[0]
    assert len(rows) == 5 and {row["dataset"] for row in rows} == {"cub200"}
