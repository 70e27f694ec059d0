"""How long it takes from a folder of 30,000 images to its first sample, reading lists, finding files, opening one
picture.

    python benchmarks/data_speed.py [--images N] [--out FILE]

A folder with labels.csv, and Food101 in its official layout (every name a link to one small JPEG, made first and not
counted). Nothing is written unless --out names a file for the printed text.
"""

import argparse
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from speciarl.data.samples import open_image
from speciarl.data.sets import read_data
from speciarl.data.trees import load_tree

LIMIT = 2.0  # seconds


def plain(folder: Path, one: Path, n: int) -> str:
    "A folder of n images with labels.csv."
    for i in range(n):
        os.link(one, folder / f"{i:05}.jpg")
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"{i:05}.jpg,beagle\n" for i in range(n)))
    return str(folder)


def food101(folder: Path, one: Path, n: int) -> str:
    "Food101 with n test images, spread over its 101 classes."
    names = {label.replace(" ", "_"): [] for label in load_tree("food101").classes()}
    for i in range(n):
        names[list(names)[i % len(names)]].append(i)
    for name, numbers in names.items():
        (folder / "images" / name).mkdir(parents=True)
        for i in numbers:
            os.link(one, folder / "images" / name / f"{i}.jpg")
    (folder / "meta").mkdir()
    (folder / "meta" / "test.json").write_text(
        json.dumps({name: [f"{name}/{i}" for i in numbers] for name, numbers in names.items()})
    )
    (folder / "meta" / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    for split in ("train", "test"):
        (folder / "meta" / f"{split}.txt").write_text(
            "".join(f"{name}/{i}\n" for name, numbers in names.items() for i in numbers) if split == "test" else ""
        )
    return f"food101={folder}"


def first_sample(make: Callable[[Path, Path, int], str], n: int) -> tuple[int, float, float]:
    """How many samples there are, and the seconds until the first one's picture is open: on the wall, and of
    processor time."""
    with tempfile.TemporaryDirectory() as root:
        one, folder = Path(root) / "one.jpg", Path(root) / "data"
        folder.mkdir()
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), "olive").save(buffer, "JPEG")
        one.write_bytes(buffer.getvalue())
        word = make(folder, one, n)
        start, busy = time.perf_counter(), time.process_time()
        samples = read_data(word)
        open_image(samples[0])
        return len(samples), time.perf_counter() - start, time.process_time() - busy


def report(n: int) -> list[str]:
    lines = [
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}; load average "
        f"{os.getloadavg()[0]:.1f}"
    ]
    for title, make in (("a folder with labels.csv", plain), ("Food101 in its official layout", food101)):
        count, seconds, busy = first_sample(make, n)
        lines.append(
            f"  {title:34}{count:8,} samples, the first after {seconds:5.2f} s ({busy:.2f} s of processor time); "
            f"limit {LIMIT:g} s"
        )
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    text = "\n".join([f"$ python benchmarks/data_speed.py --images {options.images}", *report(options.images)]) + "\n"
    print(text, end="")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
