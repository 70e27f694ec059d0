"""The Hub as a source of data: a folder of this machine stands for it, and for its commits a stub of the one call
that asks for them."""

import json
import sys
from types import SimpleNamespace

import datasets
import pytest
from command_line import ok, refused
from PIL import Image
from refusal import message

from speciarl.data.samples import open_image, read_hub, resolve_revision

NAMES = ["Abyssinian", "american_bulldog", "pug"]


@pytest.fixture
def repo(tmp_path):
    "A data set in the layout of the Hub: one Parquet file with images and class numbers."
    pictures = [Image.new("RGB", (16, 16), colour) for colour in ("sienna", "linen", "black")]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES), "breed": datasets.Value("string")}
    )
    table = datasets.Dataset.from_dict(
        {"image": pictures, "label": [1, 0, 2], "breed": ["American Bulldog", "abyssinian", "Pug"]}, features=features
    )
    (tmp_path / "repo" / "data").mkdir(parents=True)
    table.to_parquet(tmp_path / "repo" / "data" / "test-00000-of-00001.parquet")
    return str(tmp_path / "repo")


@pytest.fixture
def read(repo, tmp_path):
    return lambda *args, name="oxford_pets", **kwargs: read_hub(
        name, repo, tmp_path / "copy", *args, cache=tmp_path / "cache", **kwargs
    )


LABELS = ["american bulldog", "abyssinian", "pug"]


def test_a_copy_is_read_like_any_folder(read, tmp_path):
    samples = read()
    assert [(s.id, s.label, s.dataset, s.split) for s in samples] == [
        (f"{i:06d}.png", label, "oxford_pets", "test") for i, label in enumerate(LABELS)
    ]
    assert [open_image(s).getpixel((0, 0)) for s in samples] == [(160, 82, 45), (250, 240, 230), (0, 0, 0)]
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
        "hub.json",
        "labels.csv",
    ]
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_second_call_asks_nobody(read, repo, monkeypatch):
    first = read()
    monkeypatch.setattr(datasets, "load_dataset", None)
    assert read() == first


def test_labels_may_be_text(read):
    assert [s.label for s in read(label="breed")] == LABELS


def test_the_commit_is_recorded_and_stays(read, repo, tmp_path, monkeypatch):
    asked, load = [], datasets.load_dataset

    class HfApi:
        def dataset_info(self, name, revision=None):
            asked.append((name, revision))
            return SimpleNamespace(sha="c0ffee" if revision in (None, "main", "c0ffee") else "beef")

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name, revision, **options: asked.append((name, revision)) or load(repo, **options),
    )
    hub = lambda revision=None: read_hub(
        "oxford_pets", "somebody/pets", tmp_path / "copy", revision=revision, cache=tmp_path / "cache"
    )
    assert [s.label for s in hub("main")] == LABELS
    assert asked == [("somebody/pets", "main"), ("somebody/pets", "c0ffee")]  # the commit is loaded, not the branch
    record = json.loads((tmp_path / "copy" / "hub.json").read_text())
    assert record == {
        "dataset": "oxford_pets",
        "repo": "somebody/pets",
        "split": "test",
        "revision": "c0ffee",
        "asked": "main",
        "images": 3,
    }
    assert hub() == hub("main") == hub("c0ffee") and len(asked) == 2
    assert (
        message(hub, "v2") == f"{tmp_path / 'copy'}: holds revision 'c0ffee', asked for was 'v2'; give another folder"
    )


def test_the_hub_cannot_be_asked(tmp_path, monkeypatch):
    class HfApi:
        def dataset_info(self, name, revision=None):
            raise ConnectionError("no route\nmore")

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
    assert (
        message(read_hub, "oxford_pets", "somebody/pets", tmp_path / "copy")
        == "cannot ask the Hub about somebody/pets: no route; check the name and the network"
    )
    assert not list(tmp_path.iterdir())


def test_a_folder_is_known_by_its_files(repo, tmp_path):
    before = resolve_revision(repo)
    assert resolve_revision(repo) == before
    (tmp_path / "repo" / "README.md").write_text("Pets")
    assert resolve_revision(repo) != before


def test_something_else_is_not_read_as_what_was_asked_for(read, repo, tmp_path):
    read()
    assert (
        message(read, "train") == f"{tmp_path / 'copy'}: holds split 'test', asked for was 'train'; give another folder"
    )
    assert (
        message(read, name="cub200")
        == f"{tmp_path / 'copy'}: holds dataset 'oxford_pets', asked for was 'cub200'; give another folder"
    )
    (tmp_path / "mine").mkdir()
    assert (
        message(read_hub, "oxford_pets", repo, tmp_path / "mine")
        == f"{tmp_path / 'mine'}: not a copy from the Hub (no readable hub.json); give another folder"
    )


def test_labels_of_another_set(read, tmp_path):
    assert (
        message(read, name="food101")
        == "3 labels are no classes of food101 ('abyssinian', 'american bulldog', 'pug'); give the name of the data "
        "set that this is a copy of"
    )
    assert not (tmp_path / "copy").exists()


def test_class_names_of_another_spelling_are_the_same_classes(tmp_path, caplog):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["Miniature_PUG", "PUG"])}
    )
    pictures = [Image.new("RGB", (4, 4))] * 2
    (tmp_path / "repo" / "data").mkdir(parents=True)
    place = tmp_path / "repo" / "data" / "test-00000-of-00001.parquet"
    copied = ("oxford_pets", str(tmp_path / "repo"), tmp_path / "copy")
    datasets.Dataset.from_dict({"image": pictures, "label": [0, 1]}, features=features).to_parquet(place)
    assert message(read_hub, *copied, cache=tmp_path / "cache").startswith("1 labels are no classes of oxford_pets ('")
    table = datasets.Dataset.from_dict({"image": pictures, "label": ["american-BULLDOG", "PUG"]})
    table.cast_column("image", datasets.Image()).to_parquet(place)
    samples = read_hub(*copied, cache=tmp_path / "cache2")
    assert [sample.label for sample in samples] == ["american bulldog", "pug"]


def test_an_image_without_a_label(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    table = datasets.Dataset.from_dict({"image": [Image.new("RGB", (4, 4))], "label": [-1]}, features=features)
    (tmp_path / "repo" / "data").mkdir(parents=True)
    table.to_parquet(tmp_path / "repo" / "data" / "test-00000-of-00001.parquet")
    assert message(
        read_hub, "oxford_pets", str(tmp_path / "repo"), tmp_path / "copy", cache=tmp_path / "cache"
    ).startswith("1 labels are no classes of oxford_pets ('-1')")


def test_columns_and_splits_that_are_not_there(read, repo):
    assert (
        message(read, label="kind")
        == f"{repo} has no column 'kind' (found image, label, breed); name the columns with --image-column and "
        "--label-column (in Python: image=, label=)"
    )
    assert message(read, "train").startswith(f"cannot load {repo}, split 'train': ")


def test_a_picture_that_cannot_be_read_is_found_when_it_is_opened(tmp_path):
    table = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"no picture", "path": None}], "label": ["pug"]},
        features=datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("string")}),
    )
    (tmp_path / "repo" / "data").mkdir(parents=True)
    table.to_parquet(tmp_path / "repo" / "data" / "test-00000-of-00001.parquet")
    (sample,) = read_hub("oxford_pets", str(tmp_path / "repo"), tmp_path / "copy", cache=tmp_path / "cache")
    assert sample.id == "000000.jpg" and "corrupt" in message(open_image, sample)


def test_without_the_package(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert message(read) == "reading from the Hub needs the package datasets; install it: pip install 'speciarl[train]'"


def test_nothing_is_left_when_writing_fails(read, tmp_path, monkeypatch):
    import speciarl.data.samples

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(speciarl.data.samples, "_write_images", full)
    assert (
        message(read)
        == f"cannot write {tmp_path / 'copy'}: No space left on device; make room or choose another folder"
    )
    assert not (tmp_path / "copy").exists() and not [p for p in tmp_path.iterdir() if p.name.startswith(".copy")]


def test_from_the_command_line(repo, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "sets"
    for _ in range(2):  # the second finds it there
        assert (
            ok("data", "download", "oxford_pets", "--out", out, "--repo", repo)
            == f"wrote {out}/oxford_pets: 3 images of {repo}, test\n"
        )
    assert {path.name for path in (out / "oxford_pets").iterdir()} == {
        "000000.png",
        "000001.png",
        "000002.png",
        "hub.json",
        "labels.csv",
    }
    assert refused("data", "download", "oxford_pets", "--out", out, "--repo", repo, "--split", "train").startswith(
        f"{out}/oxford_pets: holds split 'test', asked for was 'train'"
    )
    for option in (("--revision", "c0ffee"), ("--split", "train")):
        assert (
            refused("data", "download", "oxford_pets", "--out", tmp_path / "new", *option)
            == "--revision and --split are of a data set on the hub: name it with --repo"
        )
    assert not (tmp_path / "new").exists()
