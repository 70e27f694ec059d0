"The one door to data sets: what a name or a word opens, what everybody may ask of it, and one line for what is none."

import json
import random
import re
from itertools import islice
from pathlib import Path

import pytest
from layouts import build, classes_of, plan
from PIL import Image
from refusal import message

from speciarl.core.names import name_key
from speciarl.data.benchmarks import DATASETS
from speciarl.data.fieldguide import DOMAINS, World, choose, groups, plates
from speciarl.data.photographs import PHOTOGRAPHS
from speciarl.data.samples import read_folder
from speciarl.data.sets import (
    PLATES,
    BenchmarkSet,
    FieldGuideSet,
    FolderSet,
    all_strict,
    classes_in,
    named_set,
    open_set,
    read_data,
    split_word,
)
from speciarl.data.splits import read_split
from speciarl.data.trees import load_tree


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    "Three benchmarks of a few classes, each under its name; only read them."
    root = tmp_path_factory.mktemp("root")
    for name in ("cub200", "oxford_pets", "flowers102"):
        build(name, root / name, plan(name, classes=classes_of(name)[:6]))
    return root


# The draws, which results depend on


def test_the_field_guide_is_drawn_as_ever():
    world = World(siblings=5)
    found = named_set("pets", world=world, seed=3)
    expected = plates("pets", "train", 7, 3, world)
    assert found.draw("train", 7) == list(islice(found.shuffled("train"), 7)) == expected
    assert found.samples("test", 4) == plates("pets", "test", 4, 3, world) and len(found.samples()) == PLATES
    assert found.held_out(4, ()) == plates("pets", "validation", 4, 0, world), "whatever the seed"


@pytest.mark.parametrize("seed", [42, 7])
def test_a_benchmark_is_drawn_as_the_release_draws(root, seed):
    everything = read_split("cub200", root / "cub200", "train")
    found = named_set("cub200", root, subset_seed=seed, seed=99)
    expected = [everything[i] for i in random.Random(seed).sample(range(len(everything)), 4)]
    assert found.draw("train", 4) == expected == list(found.shuffled("train"))[:4]
    assert found.samples("train") == everything, "all of a split stays in the order of its list"
    assert found.samples("train", 4) == expected and found.samples("train", 10**6) == everything


def test_what_is_held_out_is_not_trained_on(root):
    found = named_set("cub200", root)
    trained = {sample.id for sample in found.draw("train", 4)}
    left = found.held_out(100, trained)
    assert len(left) == 2 and trained.isdisjoint(sample.id for sample in left)
    assert found.held_out(3, {sample.id for sample in found.draw("train", 6)}) == [], "nothing is left"


def test_pets_are_trained_on_what_their_authors_call_trainval(root):
    found = named_set("oxford_pets", root)
    assert {sample.split for sample in found.draw("train", 6)} == {"trainval"}
    assert (
        found.samples("train")
        == found.samples("trainval")
        == read_split("oxford_pets", root / "oxford_pets", "trainval")
    )


def test_a_choice_takes_the_first_of_each_class_of_the_stream(root):
    found = named_set("birds")
    stream = list(islice(found.shuffled("train"), 600))
    wanted = found.classes()[:3]
    taken = choose(found.shuffled("train"), wanted, 6, 2)
    expected = [[s.id for s in stream if s.label == name][:2] for name in wanted]
    assert sorted(s.id for s in taken) == sorted(id for ids in expected for id in ids)
    assert [s.id for s in taken] == [s.id for s in stream if s in taken], "in the order of the stream"
    assert choose(stream, [name.upper() for name in wanted], 6, 2) == taken, "names are compared as names"
    few = list(named_set("flowers102", root).shuffled("train"))
    assert len(choose(few, classes_of("flowers102"), 99)) == len(few) and choose(few, ["daisy"], 9) == []


# What is asked of a data set


@pytest.mark.parametrize("name", [*DOMAINS, *DATASETS])
def test_facts(name):
    found = named_set(name)
    assert found.drawn == found.strict == (name in DOMAINS) and found.folder is None
    assert found.tree == load_tree(name) and set(found.classes()) <= set(found.tree.classes())
    assert all((Path(__file__).parent.parent / "speciarl/assets" / path).exists() for path in found.assets.values())
    assert classes_in(name) == load_tree(name).classes()


def test_a_world_has_the_classes_of_its_siblings():
    names = [name for group in groups("birds", 3) for name in group.classes]
    assert named_set("birds", world=World(siblings=3)).classes() == classes_in("birds", 3) == names
    assert {name_key(sample.label) for sample in FieldGuideSet("birds", World(3)).samples()} <= set(
        map(name_key, names)
    )
    assert len(classes_in("cub200", 3)) == 200


def test_strict_means_all():
    assert all_strict(["birds", "cars"]) and not all_strict(["birds", "cub200"]) and all_strict([])


# Words


def test_data_by_one_word(tmp_path):
    photos = pictures(tmp_path / "photos", "a.png", "b.png")
    (photos / "labels.csv").write_text("file,label\na.png,beagle\nb.png,pug\n")
    assert [s.label for s in read_data(str(photos))] == ["beagle", "pug"]
    assert len(read_data(str(photos), limit=1)) == 1
    assert len(read_data("pets", limit=5)) == 5 and read_data("pets", "train", 1)[0].split == "train"
    odd = tmp_path / "a=b"
    photos.rename(odd)
    assert len(read_data(str(odd))) == 2
    pets = tmp_path / "oxford"
    pictures(pets / "images", "Abyssinian_1.jpg", "american_bulldog_12.jpg", "Egyptian_Mau_3.jpg")
    (pets / "annotations").mkdir()
    (pets / "annotations" / "test.txt").write_text(
        "Abyssinian_1 1 1 1\namerican_bulldog_12 2 2 1\nEgyptian_Mau_3 3 1 2\n"
    )
    for word in (str(pets), f"oxford_pets={pets}"):
        assert [s.dataset for s in read_data(word)] == ["oxford_pets"] * 3
    assert len(read_data(f"oxford_pets={pets}", limit=2)) == 2


@pytest.mark.parametrize(
    "word, expected", [("birds", ("birds", None)), ("cub200=a/b=c", ("cub200", Path("a/b=c"))), ("a b", ("a b", None))]
)
def test_a_word_is_a_name_or_a_name_and_a_folder(word, expected):
    assert split_word(word) == expected


def test_a_folder_that_is_there_may_have_a_sign_in_its_name(tmp_path):
    odd = pictures(tmp_path / "a=b", "pug/1.png", "samoyed/1.png")
    assert split_word(str(odd)) == (str(odd), None) and len(read_data(str(odd))) == 2


def test_a_name_stays_a_name_whatever_lies_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "birds", "pug/1.png", "samoyed/1.png")
    assert isinstance(named_set("birds"), FieldGuideSet)
    assert isinstance(open_set("birds"), FolderSet), "who types it means the folder"


def test_where_a_benchmark_lies(root, tmp_path, monkeypatch):
    folder = root / "cub200"
    for found in (
        open_set(f"cub200={folder}"),
        open_set(str(folder)),
        open_set("cub200", root),
        named_set("cub200", root),
    ):
        assert isinstance(found, BenchmarkSet) and found.name == "cub200" and len(found.samples()) == 6
    assert open_set("cub200") == BenchmarkSet("cub200") and named_set("cub200") == BenchmarkSet("cub200")
    monkeypatch.chdir(root)
    assert open_set("cub200").folder == Path("cub200")


def test_a_table_and_folders_of_classes(tmp_path):
    table = pictures(tmp_path / "table", "a.png", "b.png")
    (table / "labels.csv").write_text("file,label,dataset\na.png,samoyed,pets\nb.png,pug,\n")
    assert open_set(str(table)).samples() == read_folder(table) and len(read_data(str(table), limit=1)) == 1
    assert [s.dataset for s in read_data(f"oxford_pets={table}")] == ["pets", "oxford_pets"]
    sorted_ = pictures(tmp_path / "sorted", "001.Black_footed_Albatross/1.png", "002.Laysan_Albatross/1.png")
    assert [(s.label, s.dataset, s.split) for s in read_data(str(sorted_))] == [
        ("Black footed Albatross", None, "all"),
        ("Laysan Albatross", None, "all"),
    ]
    named = read_data(f"cub200={sorted_}")
    assert [(s.label, s.dataset) for s in named] == [
        ("Black footed Albatross", "cub200"),
        ("Laysan Albatross", "cub200"),
    ]
    assert "no flowers102 here" in message(read_data, f"flowers102={sorted_}"), "these are no flowers"
    pictures(sorted_, "003.Sooty_Ablatross/1.png", "004.Groove-billed Ani/1.png")
    assert message(read_data, f"cub200={sorted_}") == (
        f"{sorted_}: 1 folders are called like no class of cub200 ('003.Sooty_Ablatross'); rename them"
    )
    assert len(read_data(str(sorted_), limit=1)) == 1
    cars = pictures(tmp_path / "cars", "2012 Ram C_V Cargo Van Minivan/1.png", "2012 FIAT 500 Abarth/1.png")
    found = read_data(f"stanford_cars={cars}")
    assert {s.label for s in found} == {"2012 Ram C/V Cargo Van Minivan", "2012 FIAT 500 Abarth"}


def test_an_archive_unpacked_halfway_is_no_folder_of_a_class(tmp_path):
    halfway = pictures(tmp_path / "flowers", "jpg/image_00001.jpg", "jpg/image_00002.jpg")
    assert "neither labels.csv nor the lists of a known data set" in message(open_set, str(halfway))
    loose = pictures(tmp_path / "loose", "pug/1.png", "samoyed/1.png", "3.png")
    assert "neither labels.csv nor the lists" in message(open_set, str(loose))


def test_a_copy_from_the_hub_knows_what_it_is(tmp_path):
    copy = pictures(tmp_path / "oxford_pets", "0.png")
    (copy / "labels.csv").write_text("file,label\n0.png,pug\n")
    (copy / "hub.json").write_text(json.dumps({"dataset": "oxford_pets", "split": "train"}))
    for found in (open_set(str(copy)), open_set(f"oxford_pets={copy}"), named_set("oxford_pets", tmp_path)):
        [sample] = found.samples("train")
        assert (sample.label, sample.dataset, sample.split) == ("pug", "oxford_pets", "train")
        assert message(found.samples) == f"{copy}: holds split 'train', asked for was 'test'; give another folder"
    assert "holds dataset 'oxford_pets', asked for was 'cub200'" in message(read_data, f"cub200={copy}", "train")
    (copy / "hub.json").write_text("half a rec")
    assert "no readable hub.json" in message(open_set, str(copy))


USE = (
    f"use a folder of images with labels.csv, one of {', '.join(DATASETS)} as NAME=FOLDER, "
    f"a domain of the field guide ({', '.join(DOMAINS)}), or photographs of the package ({', '.join(PHOTOGRAPHS)})"
)


@pytest.mark.parametrize(
    "word, line",
    [
        ("tigers", f"no data set 'tigers' and no such folder: {USE}"),
        ("tigers=/nowhere", f"no data set 'tigers' and no such folder: {USE}"),
        ("brids", f"no data set 'brids' and no such folder: did you mean birds? Else {USE}"),
        ("cub", f"no data set 'cub' and no such folder: did you mean cub200? Else {USE}"),
        ("", "data '': give a folder, or the name and folder of a data set as NAME=FOLDER"),
        ("cub200=", "data 'cub200=': give a folder, or the name and folder of a data set as NAME=FOLDER"),
        ("=x", "data '=x': give a folder, or the name and folder of a data set as NAME=FOLDER"),
        (
            "cub200",
            "data set cub200: say where it lies, cub200=FOLDER (speciarl data download cub200 --out DIR fetches it)",
        ),
        ("cub200=/nowhere", "/nowhere: no such folder; give the one that CUB_200_2011.tgz was unpacked in"),
    ],
)
def test_what_is_no_data_set_is_said_in_one_line(word, line):
    assert message(read_data, word) == line


def test_names_in_recipes_are_answered_with_near_ones():
    assert message(named_set, "brids").startswith(
        "no data set 'brids': did you mean birds? Else use the path of a folder "
    )


def test_two_sets_in_one_folder(root, tmp_path):
    both = tmp_path / "both"
    build("cub200", both, plan("cub200", classes=classes_of("cub200")[:2]))
    build("oxford_pets", both, plan("oxford_pets", classes=classes_of("oxford_pets")[:2]))
    assert "the lists of cub200 and oxford_pets in it; name the data set: NAME=" in message(open_set, str(both))
    assert {sample.dataset for sample in read_data(f"oxford_pets={both}")} == {"oxford_pets"}


def test_a_folder_that_is_no_data_set(tmp_path):
    line = f"{tmp_path}: neither labels.csv nor the lists of a known data set in it; name the data set: NAME={tmp_path}"
    assert message(read_data, str(tmp_path)) == line


def test_nobody_else_asks_what_kind_of_data_set_a_name_is():
    """A new kind of data set must be a change in one chapter. The base policy draws plates of all domains, which
    asks nothing."""
    package = Path(__file__).parent.parent / "speciarl"
    asking = [
        f"{path.parent.name}.{path.stem}"
        for path in sorted(package.glob("*/*.py"))
        if path.parent.name != "data" and re.search(r"\bin (DOMAINS|DATASETS)\b", path.read_text(encoding="utf-8"))
    ]
    assert asking == []
