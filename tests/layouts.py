"""Small folders in the official layouts of the seven data sets: the lists of the originals (.txt, .mat, .xml) and
tiny images under the original names."""

import io
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from speciarl.data.benchmarks import DATASETS
from speciarl.data.trees import load_tree

SPLITS = {
    name: tuple(s for s in info.splits if not (s == "trainval" and "train" in info.splits))
    for name, info in DATASETS.items()
}  # those that do not overlap
CATS = {
    "abyssinian",
    "bengal",
    "birman",
    "bombay",
    "british shorthair",
    "egyptian mau",
    "maine coon",
    "persian",
    "ragdoll",
    "russian blue",
    "siamese",
    "sphynx",
}

Plan = list[tuple[str, str, int]]  # split, label, image number from 1


@cache
def classes_of(name: str) -> list[str]:
    return load_tree(name).classes()


def plan(name: str, sizes: dict[str, int] | None = None, classes: list[str] | None = None) -> Plan:
    "Which images to make: by default one of every class of the label tree in every split; the classes take turns."
    classes = classes or classes_of(name)
    sizes = sizes or {split: len(classes) for split in SPLITS[name]}
    pairs = [(split, classes[j % len(classes)]) for split, n in sizes.items() for j in range(n)]
    return [(split, label, i) for i, (split, label) in enumerate(pairs, 1)]


def labels(images: Plan, *splits: str) -> list[str]:
    return [label for split, label, _ in images if split in splits]


def build(name: str, folder: Path, images: Plan | None = None) -> Path:
    "Make the data set in `folder`, as its archives would when unpacked there, and return `folder`."
    BUILDERS[name](Path(folder), images if images is not None else plan(name))
    return Path(folder)


@cache
def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "olive").save(buffer, "JPEG")
    return buffer.getvalue()


def put(path: Path, content: str | bytes | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg() if content is None else content.encode() if isinstance(content, str) else content)


def lines(rows) -> str:
    return "".join(" ".join(map(str, row)) + "\n" for row in rows)


def put_mat(path: Path, **variables) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, variables)


def numbered(images: Plan) -> dict[str, int]:
    "Labels to the numbers 1, 2, ... in the order of first appearance."
    return {label: i for i, label in enumerate(dict.fromkeys(label for _, label, _ in images), 1)}


def cub200(folder, images):
    base, number = folder / "CUB_200_2011", numbered(images)
    classes = {label: f"{i:03d}.{label.replace(' ', '_')}" for label, i in number.items()}
    paths = {i: f"{classes[label]}/{label.replace(' ', '_')}_{i:04d}_{i}.jpg" for _, label, i in images}
    put(base / "classes.txt", lines((number[label], name) for label, name in classes.items()))
    put(base / "images.txt", lines(paths.items()))
    put(base / "image_class_labels.txt", lines((i, number[label]) for _, label, i in images))
    put(base / "train_test_split.txt", lines((i, int(split == "train")) for split, _, i in images))
    for path in paths.values():
        put(base / "images" / path)


def fgvc_aircraft(folder, images):
    base = folder / "fgvc-aircraft-2013b" / "data"
    put(base / "variants.txt", lines((label,) for label in numbered(images)))
    for part in ("train", "val", "trainval", "test"):
        put(
            base / f"images_variant_{part}.txt",
            lines(
                (f"{i:07d}", label)
                for split, label, i in images
                if split == part or (part == "trainval" and split in ("train", "val"))
            ),
        )
    for _, _, i in images:
        put(base / "images" / f"{i:07d}.jpg")


def flowers102(folder, images):
    names = DATASETS["flowers102"].names
    put_mat(folder / "imagelabels.mat", labels=np.array([[names.index(label) + 1 for _, label, _ in images]], np.uint8))
    put_mat(
        folder / "setid.mat",
        **{
            key: np.array([[i for s, _, i in images if s == split]], np.uint16)
            for key, split in (("trnid", "train"), ("valid", "val"), ("tstid", "test"))
        },
    )
    for _, _, i in images:
        put(folder / "jpg" / f"image_{i:05d}.jpg")


def food101(folder, images):
    base = folder / "food-101"
    path = {i: f"{label.replace(' ', '_')}/{1000 + i}" for _, label, i in images}
    put(base / "meta" / "classes.txt", lines((label.replace(" ", "_"),) for label in sorted(numbered(images))))
    put(base / "meta" / "labels.txt", lines((label.capitalize(),) for label in sorted(numbered(images))))
    for part in ("train", "test"):
        put(base / "meta" / f"{part}.txt", lines((path[i],) for split, _, i in images if split == part))
    for _, _, i in images:
        put(base / "images" / f"{path[i]}.jpg")


def oxford_pets(folder, images):
    number = numbered(images)
    stem = {i: f"{(label.title() if label in CATS else label).replace(' ', '_')}_{i}" for _, label, i in images}
    row = {i: (stem[i], number[label], 1 if label in CATS else 2, number[label]) for _, label, i in images}
    put(
        folder / "annotations" / "list.txt",
        "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n" + lines(row.values()),
    )
    for part in ("trainval", "test"):
        put(folder / "annotations" / f"{part}.txt", lines(row[i] for split, _, i in images if split == part))
    for _, _label, i in images:
        put(folder / "images" / f"{stem[i]}.jpg")
    put(folder / "images" / "Abyssinian_100.mat", b"")  # the archive has a few of these
    put(
        folder / "annotations" / "xmls" / f"{stem[images[0][2]]}.xml",
        "<annotation><object><name>cat</name></object></annotation>",
    )


def year_last(label: str) -> str:
    return f"{label[5:]} {label[:4]}"


def car_rows(rows, kind) -> np.ndarray:
    "A MATLAB struct array of one row."
    array = np.empty((1, len(rows)), dtype=[(field, object) for field in kind])
    for i, row in enumerate(rows):
        array[0, i] = tuple(row)
    return array


BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def stanford_cars(folder, images):
    number = numbered(images)
    put_mat(
        folder / "devkit" / "cars_meta.mat",
        class_names=np.array([[year_last(label) for label in number]], dtype=object),
    )
    for part, path in (("train", "devkit/cars_train_annos.mat"), ("test", "cars_test_annos_withlabels.mat")):
        rows = [(1, 1, 30, 30, number[label], f"{i:05d}.jpg") for split, label, i in images if split == part]
        put_mat(folder / path, annotations=car_rows(rows, (*BOX, "class", "fname")))
    for split, _, i in images:
        put(folder / f"cars_{split}" / f"{i:05d}.jpg")


def stanford_cars_flagged(folder, images):
    "The older distribution: car_ims and cars_annos.mat."
    number = numbered(images)
    rows = [(f"car_ims/{i:06d}.jpg", 1, 1, 30, 30, number[label], int(split == "test")) for split, label, i in images]
    put_mat(
        folder / "cars_annos.mat",
        annotations=car_rows(rows, ("relative_im_path", *BOX, "class", "test")),
        class_names=np.array([[year_last(label) for label in number]], dtype=object),
    )
    for _, _, i in images:
        put(folder / "car_ims" / f"{i:06d}.jpg")


def stanford_dogs(folder, images):
    number = numbered(images)
    classes = {
        label: f"n{2085000 + i:08d}-{label.replace(' ', '_') if i % 2 else label.replace(' ', '-').lower()}"
        for label, i in number.items()
    }
    path = {i: f"{classes[label]}/{classes[label][:9]}_{i}.jpg" for _, label, i in images}
    for part in ("train", "test"):
        chosen = [(path[i], number[label]) for split, label, i in images if split == part]
        put_mat(
            folder / f"{part}_list.mat",
            file_list=np.array([[p] for p, _ in chosen], dtype=object),
            labels=np.array([[n] for _, n in chosen]),
        )
    for p in path.values():
        put(folder / "Images" / p)
    first = path[images[0][2]]
    put(
        folder / "Annotation" / first.removesuffix(".jpg"), "<annotation><object><name>dog</name></object></annotation>"
    )


BUILDERS = {
    "cub200": cub200,
    "fgvc_aircraft": fgvc_aircraft,
    "flowers102": flowers102,
    "food101": food101,
    "oxford_pets": oxford_pets,
    "stanford_cars": stanford_cars,
    "stanford_dogs": stanford_dogs,
}
