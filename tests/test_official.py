"""The seven data sets in their official layouts: right labels, right splits, and one line for every way a folder can
be wrong."""

import json
import re
import sys
from pathlib import Path

import layouts
import pytest
from layouts import SPLITS, build, classes_of, labels, plan
from refusal import message

from speciarl.core.scale import UserError
from speciarl.data.benchmarks import DATASETS, clean_label, list_lines, locate, recognise
from speciarl.data.samples import open_image
from speciarl.data.splits import check_benchmark, draw_subset, read_split

ROOT = Path(__file__).parent.parent
every = pytest.mark.parametrize("name", list(DATASETS))


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    "All seven in miniature, every class once in every split: name to folder. Only read them."
    root = tmp_path_factory.mktemp("sets")
    return {name: build(name, root / name) for name in DATASETS}


@pytest.fixture
def small(tmp_path):
    "A function that builds a set of three classes, to be damaged."
    return lambda name: build(name, tmp_path / name, plan(name, classes=classes_of(name)[:3]))


# --- what is read -----------------------------------------------------------------------------------------------------


@every
def test_every_class_is_read_under_its_name_in_the_tree(name, sets):
    images = plan(name)
    for split in SPLITS[name]:
        samples = read_split(name, sets[name], split)
        assert [s.label for s in samples] == labels(images, split)
        assert {s.label for s in samples} == set(classes_of(name))
        assert len({s.id for s in samples}) == len(samples)
        assert {(s.dataset, s.split) for s in samples} == {(name, split)}


@every
def test_images_are_found_and_ids_do_not_depend_on_the_place(name, sets):
    place = locate(name, sets[name])
    sample = read_split(name, sets[name])[0]
    assert sample.image == place.base / sample.id and open_image(sample).size == (32, 32)
    assert [s.id for s in read_split(name, place.base)] == [s.id for s in read_split(name, sets[name])]


@every
def test_splits_do_not_overlap(name, sets):
    ids = [{s.id for s in read_split(name, sets[name], split)} for split in SPLITS[name]]
    assert sum(map(len, ids)) == len(set.union(*ids))


def test_aircraft_trainval_is_both(sets):
    ids = {
        split: [s.id for s in read_split("fgvc_aircraft", sets["fgvc_aircraft"], split)]
        for split in DATASETS["fgvc_aircraft"].splits
    }
    assert sorted(ids["trainval"]) == sorted(ids["train"] + ids["val"])


def test_no_image_is_opened(tmp_path):
    folder = build("cub200", tmp_path, plan("cub200", classes=classes_of("cub200")[:2]))
    for path in folder.rglob("*.jpg"):
        path.write_bytes(b"no picture")
    samples = read_split("cub200", folder)
    assert len(samples) == 2
    assert message(open_image, samples[0]).startswith(str(samples[0].image))


def test_both_layouts_of_cars_agree(tmp_path, sets):
    images = plan("stanford_cars")
    layouts.stanford_cars_flagged(tmp_path, images)
    for split in ("train", "test"):
        assert [s.label for s in read_split("stanford_cars", tmp_path, split)] == [
            s.label for s in read_split("stanford_cars", sets["stanford_cars"], split)
        ]
    assert read_split("stanford_cars", tmp_path)[0].id == "car_ims/000197.jpg"


@pytest.mark.parametrize("place", [".", "fgvc-aircraft-2013b", "fgvc-aircraft-2013b/data"])
def test_the_folder_may_be_named_at_any_depth(place, sets):
    assert len(read_split("fgvc_aircraft", sets["fgvc_aircraft"] / place)) == 100


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "raw", "label"),
    [
        ("cub200", "001.Black_footed_Albatross", "Black footed Albatross"),
        ("cub200", "021.Eastern_Towhee", "Eastern Towhee"),
        ("cub200", "Chuck_will_Widow", "Chuck will Widow"),
        ("fgvc_aircraft", "F-16A/B", "F-16A/B"),
        ("fgvc_aircraft", "F-16A_B", "F-16A/B"),
        ("fgvc_aircraft", "F_A-18", "F/A-18"),
        ("fgvc_aircraft", "Boeing_717", "Boeing 717"),
        ("fgvc_aircraft", "DHC-8-100", "DHC-8-100"),
        ("fgvc_aircraft", "BAE_146-200", "BAE 146-200"),
        ("fgvc_aircraft", "Model_B200", "Model B200"),
        ("stanford_cars", "AM General Hummer SUV 2000", "2000 AM General Hummer SUV"),
        ("stanford_cars", "2000 AM General Hummer SUV", "2000 AM General Hummer SUV"),
        ("stanford_cars", "Audi 100 Sedan 1994", "1994 Audi 100 Sedan"),
        ("stanford_cars", "Ram C/V Cargo Van Minivan 2012", "2012 Ram C/V Cargo Van Minivan"),
        ("oxford_pets", "Egyptian_Mau", "egyptian mau"),
        ("oxford_pets", "american_bulldog", "american bulldog"),
        ("oxford_pets", "American_Bulldog", "american bulldog"),
        ("stanford_dogs", "n02085620-Chihuahua", "Chihuahua"),
        ("stanford_dogs", "n02086240-Shih-Tzu", "Shih Tzu"),
        ("stanford_dogs", "n02089078-black-and-tan_coonhound", "Black And Tan Coonhound"),
        ("stanford_dogs", "n02108000-EntleBucher", "Entlebucher"),
        ("stanford_dogs", "n02106382-Bouvier_des_Flandres", "Bouvier Des Flandres"),
        ("food101", "apple_pie", "apple pie"),
        ("food101", "Apple pie", "apple pie"),
        ("flowers102", "colt's foot", "colt's foot"),
        ("flowers102", " hard-leaved pocket orchid", "hard-leaved pocket orchid"),
    ],
)
def test_label_rules(name, raw, label):
    assert clean_label(name, raw) == label
    assert label in classes_of(name)


@every
def test_a_label_of_the_tree_stays_as_it_is(name):
    classes = classes_of(name)
    assert [clean_label(name, label) for label in classes] == classes
    assert len(classes) == DATASETS[name].classes


# --- CoOp splits ------------------------------------------------------------------------------------------------------

COOP = {
    "flowers102": ("split_zhou_OxfordFlowers.json", "jpg/"),
    "food101": ("split_zhou_Food101.json", "images/"),
    "oxford_pets": ("split_zhou_OxfordPets.json", "images/"),
    "stanford_cars": ("split_zhou_StanfordCars.json", ""),
}


def coop_of(name, folder) -> dict:
    "A CoOp split of a miniature: the official test images become the training images, and the other way round."
    _, prefix = COOP[name]
    first, *_, last = SPLITS[name]
    entry = lambda s: [s.id.removeprefix(prefix), 0, s.label.lower().replace(" ", "_")]
    test, train = (
        [entry(s) for s in read_split(name, folder, first)],
        [entry(s) for s in read_split(name, folder, last)],
    )
    return {"train": train[2:], "val": train[:2], "test": test}


@pytest.mark.parametrize("name", list(COOP))
def test_coop_json(name, sets, tmp_path):
    folder = build(name, tmp_path)
    (folder / COOP[name][0]).write_text(json.dumps(coop_of(name, folder)))
    first, *_, last = SPLITS[name]
    assert [(s.id, s.label) for s in read_split(name, folder, "coop-test")] == [
        (s.id, s.label) for s in read_split(name, folder, first)
    ]
    assert [s.id for s in read_split(name, folder, "coop-val")] == [s.id for s in read_split(name, folder, last)][:2]
    assert {s.split for s in read_split(name, folder, "coop-train")} == {"coop-train"}
    assert f"coop-val: 2 images, officially {DATASETS[name].coop['val']:,}" in check_benchmark(name, folder)


def test_coop_csv_with_class_folders_that_the_archive_lacks(small):
    folder = small("oxford_pets")
    samples = read_split("oxford_pets", folder, "test")
    rows = [f"test,{s.label.title().replace(' ', '_')}/{Path(s.id).name}" for s in samples]
    (folder / "split_coop.csv").write_text("split,filename\n" + "\n".join(rows) + "\ntrain,x\n")
    assert [s.id for s in read_split("oxford_pets", folder, "coop-test")] == [s.id for s in samples]


def test_coop_needs_its_file(small):
    folder = small("oxford_pets")
    assert (
        message(read_split, "oxford_pets", folder, "coop-test")
        == f"{folder}: the CoOp splits need the file split_zhou_*.json published with CoOp, or split_coop.csv "
        "(columns split, filename); put it there"
    )


@pytest.mark.parametrize("content", ["{}", "[1]", "no json", '{"train": [], "val": [], "test": [[]]}', '{"test": [3]}'])
def test_coop_file_that_is_none(content, small):
    folder = small("oxford_pets")
    (folder / "split_zhou_OxfordPets.json").write_text(content)
    assert "not a CoOp split file" in message(read_split, "oxford_pets", folder, "coop-test")


def test_coop_file_of_another_set(small):
    folder = small("oxford_pets")
    (folder / "split_zhou_Food101.json").write_text(
        json.dumps({"train": [], "val": [], "test": [["apple_pie/1.jpg", 0, "apple_pie"]] * 2})
    )
    assert message(read_split, "oxford_pets", folder, "coop-test").endswith(
        "names 2 images that oxford_pets does not have ('apple_pie/1.jpg', ...); use the CoOp split file of oxford_pets"
    )
    assert message(read_split, "oxford_pets", folder, "coop-val").endswith(
        "names no image for val; use the CoOp split file of oxford_pets"
    )


def test_coop_csv_without_its_columns(small):
    folder = small("food101")
    (folder / "split_coop.csv").write_text("part,file\ntest,x\n")
    assert "no column 'split' (found 'part', 'file')" in message(read_split, "food101", folder, "coop-test")


def test_sets_without_a_coop_split_say_so(sets):
    assert (
        message(read_split, "cub200", sets["cub200"], "coop-test")
        == "cub200 has no split 'coop-test'; use one of train, test"
    )


# --- damaged folders --------------------------------------------------------------------------------------------------


@every
def test_folder_of_another_set(name, sets):
    for other in DATASETS:
        if other != name:
            assert (
                message(read_split, name, sets[other])
                == f"{sets[other]}: this is {other}, not {name}; give the folder of {name}"
            )
            assert check_benchmark(name, sets[other]) == [
                f"{sets[other]}: this is {other}, not {name}; give the folder of {name}"
            ]
    assert recognise(sets[name]) == [name]


@every
def test_every_list_is_missed(name, small):
    folder = small(name)
    base = locate(name, folder).base
    for path in DATASETS[name].lists:
        text = (base / path).read_bytes()
        (base / path).unlink()
        archives = " and ".join(f.name for f in DATASETS[name].files)
        line = f"{base / path} is missing; unpack {archives} again, all of it, into {base}"
        assert line in check_benchmark(name, folder)
        assert any(message_or_none(name, folder, split) == line for split in DATASETS[name].splits)
        (base / path).write_bytes(text)


def message_or_none(name, folder, split) -> str | None:
    try:
        read_split(name, folder, split)
    except UserError as error:
        return str(error)


@every
def test_damaged_list(name, small):
    folder = small(name)
    base = locate(name, folder).base
    for path in DATASETS[name].lists:
        (base / path).write_bytes(b"\x00\xff damaged")
        assert any(str(base) in problem for problem in check_benchmark(name, folder))
        assert any(message_or_none(name, folder, split) for split in DATASETS[name].splits)


@every
def test_empty_and_absent_folders(name, tmp_path):
    info = DATASETS[name]
    line = message(read_split, name, tmp_path)
    assert line.startswith(f"{tmp_path}: no {name} here (looked for {info.lists[0]}, ") and line.endswith(
        f"into it, or run: speciarl data download {name} --out DIR"
    )
    assert (
        message(read_split, name, tmp_path / "x")
        == f"{tmp_path / 'x'}: no such folder; give the one that {info.files[0].name} was unpacked in"
    )


def test_advice_to_download_says_where_to():
    "The command demands --out, so a line that names the command without it sends people into an error."
    said = []
    for path in (*(ROOT / "speciarl").rglob("*.py"), *(ROOT / "nbs").rglob("*.ipynb"), ROOT / "README.md"):
        text = path.read_text(encoding="utf-8")
        said += [(path.name, line) for line in re.findall(r"speciarl data download (?!--help)[^\n]*", text)]
    assert said and [(name, line) for name, line in said if "--out" not in line] == []


@every
def test_missing_images_are_counted_by_class(name, small):
    folder = small(name)
    sample, *_ = read_split(name, folder)
    sample.image.unlink()
    total = len(SPLITS[name])
    assert f"1 of {total} images of {sample.label!r} are missing ({sample.id})" in check_benchmark(name, folder)
    line = message(read_split, name, folder)
    assert line.startswith(
        f"{locate(name, folder).base}: 1 of 3 images of {name} test are missing ({sample.id!r}, ...); unpack the "
        "images again"
    )


def test_missing_folder_of_a_class(small):
    folder = small("food101")
    sample, *_ = read_split("food101", folder)
    for path in sample.image.parent.iterdir():
        path.unlink()
    sample.image.parent.rmdir()
    assert any(
        problem.startswith(f"2 of 2 images of {sample.label!r} are missing")
        for problem in check_benchmark("food101", folder)
    )


@every
def test_extra_images_are_named_and_not_read(name, small):
    folder = small(name)
    before = read_split(name, folder)
    extra = before[0].image.with_name("holiday.jpg")
    extra.write_bytes(layouts.jpeg())
    extra.with_name("._hidden.jpg").touch()
    assert read_split(name, folder) == before
    named = [problem for problem in check_benchmark(name, folder) if "no list names" in problem]
    assert named == (
        []
        if DATASETS[name].unlisted
        else [
            f"1 files that no list names ({extra.relative_to(locate(name, folder).base).as_posix()}); they are not read"
        ]
    )


def test_wrong_capitals(small):
    folder = small("stanford_dogs")
    (folder / "test_list.mat").rename(folder / "Test_List.mat")
    assert (
        message(read_split, "stanford_dogs", folder)
        == f"{folder / 'test_list.mat'} is missing, but Test_List.mat is there; rename it (capitals matter)"
    )
    (folder / "Test_List.mat").rename(folder / "test_list.mat")
    (folder / "Images").rename(folder / "images")
    assert f"{folder / 'Images'} is missing, but images is there; rename it (capitals matter)" in check_benchmark(
        "stanford_dogs", folder
    )
    assert message(read_split, "stanford_dogs", folder).endswith("is there, rename it (capitals matter)")


def test_wrong_capitals_of_all_lists(small):
    folder = small("oxford_pets")
    (folder / "annotations").rename(folder / "Annotations")
    (folder / "images").rename(folder / "Images")
    assert (
        message(read_split, "oxford_pets", folder)
        == f"{folder / 'annotations/trainval.txt'} is missing, but Annotations/trainval.txt is there; rename it "
        "(capitals matter)"
    )


def test_images_without_lists(small):
    folder = small("flowers102")
    for path in folder.glob("*.mat"):
        path.unlink()
    assert message(read_split, "flowers102", folder).endswith(
        "imagelabels.mat is missing; unpack 102flowers.tgz and imagelabels.mat and setid.mat again, all of it, into "
        f"{folder}"
    )


def test_a_list_cannot_point_outside(small, tmp_path):
    folder = small("cub200")
    path = folder / "CUB_200_2011" / "images.txt"
    path.write_text(path.read_text().replace("001.", "../../etc/001."))
    assert "which is not inside the folder" in message(read_split, "cub200", folder)
    rows = [("/etc/x.jpg", 1, 1, 30, 30, 1, 1), ("car_ims/1.jpg", 1, 1, 30, 30, 1, 1)]
    layouts.put_mat(
        tmp_path / "cars" / "cars_annos.mat",
        annotations=layouts.car_rows(rows, ("relative_im_path", *layouts.BOX, "class", "test")),
        class_names=[["FIAT 500 Abarth 2012"]],
    )
    assert "name '/etc/x.jpg', which is not inside the folder" in message(
        read_split, "stanford_cars", tmp_path / "cars"
    )


def test_lists_that_do_not_belong_together(small):
    folder = small("cub200")
    with open(folder / "CUB_200_2011" / "train_test_split.txt", "a") as file:
        file.write("999 0\n")
    assert message(read_split, "cub200", folder).endswith(
        "images.txt (6 images) and train_test_split.txt (7) do not belong together; unpack the archive again"
    )


def test_an_image_listed_twice(small):
    folder = small("food101")
    path = folder / "food-101" / "meta" / "test.txt"
    path.write_text(path.read_text() * 2)
    assert message(read_split, "food101", folder).endswith(
        "the list of food101 test names an image twice; restore the original list"
    )


def test_a_short_line(small):
    folder = small("oxford_pets")
    with open(folder / "annotations" / "test.txt", "a") as file:
        file.write("pug_1 2\n")
    assert message(read_split, "oxford_pets", folder).endswith(
        "test.txt: line 4 has 2 cells instead of 4; unpack the archive again"
    )


def test_a_class_the_tree_does_not_know(small):
    folder = small("fgvc_aircraft")
    path = folder / "fgvc-aircraft-2013b" / "data" / "images_variant_test.txt"
    path.write_text(path.read_text().replace(" 707-320", " 808-320"))
    problems = check_benchmark("fgvc_aircraft", folder)
    classes = classes_of("fgvc_aircraft")
    changed = "707-320" in classes[:3]
    assert ("test: 1 classes are not in the label tree (808-320)" in problems) == changed


def test_matlab_lists_without_scipy(small, monkeypatch):
    folder = small("flowers102")
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert (
        message(read_split, "flowers102", folder)
        == "imagelabels.mat is a MATLAB file, which needs SciPy; install it: pip install 'speciarl[train]'"
    )


def test_unknown_names(tmp_path):
    expected = f"no data set 'birds'; use one of {', '.join(DATASETS)}"
    assert (
        message(read_split, "birds", tmp_path)
        == message(check_benchmark, "birds", tmp_path)
        == message(clean_label, "birds", "x")
        == expected
    )


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_a_set_of_the_official_size_has_no_problems(tmp_path):
    sizes = DATASETS["flowers102"].splits
    folder = build("flowers102", tmp_path, plan("flowers102", sizes))
    assert check_benchmark("flowers102", folder) == []
    assert {split: len(read_split("flowers102", folder, split)) for split in sizes} == {
        "train": 1020,
        "val": 1020,
        "test": 6149,
    }


def test_the_published_sizes():
    assert {name: info.splits["test"] for name, info in DATASETS.items()} == {
        "cub200": 5794,
        "fgvc_aircraft": 3333,
        "flowers102": 6149,
        "food101": 25250,
        "oxford_pets": 3669,
        "stanford_cars": 8041,
        "stanford_dogs": 8580,
    }
    assert DATASETS["flowers102"].coop == {"train": 4093, "val": 1633, "test": 2463}
    assert DATASETS["food101"].coop == {"train": 50500, "val": 20200, "test": 30300}
    assert DATASETS["oxford_pets"].coop == {"train": 2944, "val": 736, "test": 3669}
    assert len(list_lines()) == 7 and all(len(line) < 160 for line in list_lines())


def test_every_published_sum_names_its_source():
    for info in DATASETS.values():
        for file in info.files:
            assert bool(file.source) == bool(file.sha256 or file.md5)
            assert len(file.sha256) in (0, 64) and len(file.md5) in (0, 32)


# --- subsets ----------------------------------------------------------------------------------------------------------


def test_subsets_are_those_of_the_release():
    "CUB has 5,994 training images; every subset size starts with the same indices, the 600 test images included."
    first = [5238, 912, 204, 2253, 2006]
    assert (
        draw_subset(range(5994), 3000)[:5]
        == draw_subset(range(5994), 128)[:5]
        == draw_subset(range(5794), 600)[:5]
        == first
    )
    assert draw_subset(range(5994), 128) == draw_subset(range(5994), 1024)[:128]
    assert len(set(draw_subset(range(5994), 128)) & set(draw_subset(range(5994), 3000))) == 126
    assert len(set(draw_subset(range(5994), 1024)) & set(draw_subset(range(5994), 3000))) == 964


def test_subsets_of_samples(sets):
    samples = read_split("oxford_pets", sets["oxford_pets"])
    assert draw_subset(samples, 37) != samples and set(draw_subset(samples, 37)) == set(samples)
    assert draw_subset(samples, 5, seed=1) != draw_subset(samples, 5)
    assert message(draw_subset, samples, 38) == "cannot draw 38 of 37 samples; ask for 1 to 37"
    assert message(draw_subset, samples, 0) == "cannot draw 0 of 37 samples; ask for 1 to 37"
