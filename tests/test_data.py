"""Readers of tables and pictures: everything a file can get wrong is refused in one line that says where and what to
do."""

import random
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image
from refusal import message

from speciarl.core.scale import UserError
from speciarl.data.samples import Sample, open_image, read_folder
from speciarl.data.sets import read_data

# --- pictures ---------------------------------------------------------------------------------------------------------


def png(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def photograph(path, **options):
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)
    return path


CORRUPT = "the image is corrupt, truncated or of another format; replace the file"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.bmp", "a.tiff", "a.webp"])
def test_a_truncated_picture(tmp_path, name):
    path = photograph(tmp_path / name)
    assert open_image(path).size == (80, 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert message(open_image, path) == f"{path}: {CORRUPT}"


def test_empty_corrupt_and_missing_pictures(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("I am a picture")
    (tmp_path / "script.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    )  # would start Ghostscript
    assert (
        message(open_image, tmp_path / "empty.jpg")
        == f"{tmp_path}/empty.jpg: the image is empty (0 bytes); replace the file"
    )
    assert message(open_image, tmp_path / "text.jpg") == f"{tmp_path}/text.jpg: {CORRUPT}"
    assert message(open_image, tmp_path / "script.jpg") == f"{tmp_path}/script.jpg: {CORRUPT}"
    assert message(open_image, tmp_path / "no.jpg") == f"{tmp_path}/no.jpg: no such image; check the path"


@pytest.mark.parametrize(
    "side", [10_001, 12_000, 50_000]
)  # below Pillow's own warning limit squared, between its limits, above both
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path, side):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side))  # the pixels are not even there: nothing may try to decode them
    assert message(open_image, path) == f"{path}: the image has more than 100,000,000 pixels; make it smaller"


def test_the_limit_of_pixels_is_an_argument(tmp_path):
    path = photograph(tmp_path / "a.png")
    assert open_image(path, max_pixels=80 * 60).size == (80, 60)
    assert (
        message(open_image, path, max_pixels=80 * 60 - 1)
        == f"{path}: the image has more than 4,799 pixels; make it smaller"
    )


@pytest.mark.parametrize("orientation, size", [(1, (80, 60)), (3, (80, 60)), (6, (60, 80)), (8, (60, 80))])
def test_a_camera_held_upright(tmp_path, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert open_image(photograph(tmp_path / "a.jpg", exif=exif)).size == size


@pytest.mark.parametrize(
    "mode, name",
    [
        ("1", "a.png"),
        ("L", "a.png"),
        ("LA", "a.png"),
        ("P", "a.gif"),
        ("RGBA", "a.webp"),
        ("CMYK", "a.jpg"),
        ("I;16", "a.png"),
        ("I;16", "a.tif"),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(tmp_path, mode, name):
    Image.new(mode, (5, 7)).save(tmp_path / name)
    picture = open_image(tmp_path / name)
    assert (picture.mode, picture.size) == ("RGB", (5, 7))


def test_sixteen_bits_are_scaled_and_thirty_two_refused(tmp_path):
    Image.fromarray(np.array([[0, 257 * 128, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(open_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 128, 255]
    Image.new("F", (2, 2), 0.5).save(tmp_path / "a.tif")
    assert (
        message(open_image, tmp_path / "a.tif")
        == f"{tmp_path}/a.tif: pixels of 32 bits; save it with 8 bits per channel"
    )


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp"):
        frames[0].save(
            tmp_path / name, save_all=True, append_images=frames[1:], **({"lossless": True} if name == "a.webp" else {})
        )
        assert open_image(tmp_path / name).getpixel((0, 0)) == (255, 0, 0)


def test_transparency_lies_on_white_in_files_and_in_memory(tmp_path):
    glass = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    glass.save(tmp_path / "a.png")
    for source in (
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        glass,
        Sample("a", glass, "glass"),
        Sample("a", tmp_path / "a.png", "glass"),
    ):
        assert open_image(source).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.bmp", "a.tiff", "a.webp"])
def test_damaged_bytes_give_a_picture_or_one_line(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = photograph(tmp_path / name, **({} if name in ("a.gif", "a.bmp") else {"exif": exif})).read_bytes()
    dice = random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            damaged[dice.randrange(min(len(damaged), dice.choice([60, 400, 10**6])))] = dice.randrange(256)
        (tmp_path / name).write_bytes(damaged)
        try:
            assert open_image(tmp_path / name, max_pixels=10**6).mode == "RGB"
        except UserError as error:
            assert str(error).startswith(f"{tmp_path}/{name}: ") and "\n" not in str(error)


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "sub/b.JPG", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photograph(tmp_path / name)
    return tmp_path


def label(folder, *lines, header="file,label"):
    (folder / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


def test_a_good_folder(folder):
    label(folder, "sub/b.JPG,samoyed,pets", "./a.png,boxer,", "sub/c.png, beagle ,", header="file,label,dataset")
    (folder / ".hidden.png").touch()
    (folder / ".cache").mkdir()
    (folder / ".cache/d.png").touch()
    (folder / "notes.txt").touch()
    assert read_folder(folder) == [
        Sample("sub/b.JPG", folder / "sub/b.JPG", "samoyed", "pets"),
        Sample("a.png", folder / "a.png", "boxer"),
        Sample("sub/c.png", folder / "sub/c.png", " beagle "),
    ]
    assert [sample.dataset for sample in read_folder(folder, limit=2, dataset="dogs")] == ["pets", "dogs"]
    assert all(open_image(sample).size == (80, 60) for sample in read_folder(folder))


@pytest.mark.parametrize(
    "lines, expected",
    [
        (["a.png,x", "sub/b.JPG,x"], "1 there but not labelled ('sub/c.png'); make labels.csv and the folder agree"),
        (
            ["a.png,x", "sub/b.JPG,x", "sub/c.png,x", "d.png,x"],
            "1 labelled but not there ('d.png'); make labels.csv and the folder agree",
        ),
        (
            [f"{i}.png,x" for i in range(5)],
            "5 labelled but not there ('0.png', '1.png', '2.png', ...) and 3 there but not labelled ('a.png', "
            "'sub/b.JPG', 'sub/c.png'); make labels.csv and the folder agree",
        ),
    ],
)
def test_labels_and_pictures_that_do_not_agree(folder, lines, expected):
    assert message(read_folder, label(folder, *lines)) == f"{folder}: {expected}"
    assert message(read_folder, folder, limit=1) == f"{folder}: {expected}"  # a limit does not hide it


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "sub/../../a.png", "sub\\b.JPG", " "])
def test_paths_stay_inside_the_folder(folder, name):
    expected = f"file {name!r} is not a path inside the folder; give it relative to {folder}, with forward slashes"
    assert message(read_folder, label(folder, f"{name},x")) == f"{folder}/labels.csv: {expected}"


def test_other_mistakes_in_the_table_of_labels(folder):
    table = folder / "labels.csv"
    assert (
        message(read_folder, folder / "no")
        == f"{folder}/no: no such folder; give one that holds images and labels.csv (file,label)"
    )
    assert message(read_folder, folder) == f"{table}: no such file; check the path"
    assert (
        message(read_folder, label(folder, "a.png,x", header="picture,label"))
        == f"{table}: no column 'file' (found 'picture', 'label'); name it with --image-column, or add it"
    )
    assert (
        message(read_folder, label(folder, "a.png, "))
        == f"{folder}: 2 there but not labelled ('sub/b.JPG', 'sub/c.png'); make labels.csv and the folder agree"
    )
    assert (
        message(read_folder, label(folder, "a.png,x", "./a.png,y"))
        == f"{table}: file 'a.png' is listed twice; keep one row"
    )
    expected = "file 'a.heic' is not an image this reads; use one of .bmp, .gif, .jpeg, .jpg, .png, .tif, .tiff, .webp"
    assert message(read_folder, label(folder, "a.heic,x")) == f"{table}: {expected}"
    assert message(read_folder, folder, limit=0) == "limit 0: must be at least 1"


# --- names as other systems write them --------------------------------------------------------------------------------


def test_names_of_another_spelling_are_the_same_files(tmp_path, caplog):
    """A Mac takes accents apart, a spreadsheet does not see capitals, and somebody's program put underscores for
    spaces."""
    for name in (unicodedata.normalize("NFD", "crème brûlée.png"), "cats/Persian_cat 1.JPG", "dog.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        photograph(tmp_path / name)
    label(tmp_path, "Crème_brûlée.PNG,crème brûlée", "cats/persian-cat_1.jpg,Persian", "dog.png,pug")
    samples = read_folder(tmp_path)
    assert [sample.id for sample in samples] == ["Crème_brûlée.PNG", "cats/persian-cat_1.jpg", "dog.png"]
    assert all(open_image(sample).size == (80, 60) for sample in samples)
    assert f"{tmp_path}: 2 x file under another spelling of its name ('Crème_brûlée.PNG' is 'cre" in caplog.text


def test_two_files_that_could_be_meant_are_refused(folder):
    photograph(folder / "A.PNG")
    label(folder, "a.png,x", "A.PNG,y", "sub/b.JPG,x", "sub/c.png,x")
    assert [sample.id for sample in read_folder(folder)] == ["a.png", "A.PNG", "sub/b.JPG", "sub/c.png"]
    label(folder, "A.png,x", "sub/b.JPG,x", "sub/c.png,x")
    told = message(read_folder, folder)
    assert told.startswith(f"{folder}: 'A.png' may be ") and told.endswith(
        "rename one so that it is clear which is meant"
    )


def test_rows_without_a_label_and_their_pictures_are_left_out(folder, caplog):
    label(folder, "a.png;x", "sub/b.JPG;", "sub/c.png;y", ";", ";", header="file;label")
    assert [sample.id for sample in read_folder(folder)] == ["a.png", "sub/c.png"]
    left = "3 of 5 rows left out: 2 with nothing in them (lines 5, 6), 1 without a label (line 3)"
    assert f"{folder}/labels.csv: {left}" in caplog.text


def test_columns_of_another_name_and_tables_of_another_kind(folder, caplog):
    rows = [["path", "Species"], ["a.png", "x"], ["sub/b.JPG", "y"], ["sub/c.png", "y"]]
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(folder / "Labels.xlsx")
    columns = {"image": "path", "label": "species"}
    assert [sample.label for sample in read_data(str(folder), columns=columns)] == ["x", "y", "y"]
    assert "column 'path' is read as image" in caplog.text and "column 'Species' is read as label" in caplog.text
    told = f"{folder}/Labels.xlsx: no column 'label' (found 'path', 'Species'); name it with --label-column, or add it"
    assert message(read_folder, folder, columns={"image": "path"}) == told
    label(folder, "a.png,x")
    told = f"{folder}: Labels.xlsx and labels.csv may both be the table of labels; keep one"
    assert message(read_folder, folder) == told
