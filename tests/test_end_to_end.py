"As a new user would: real photographs, real processes, the installed command."

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from speciarl.policy.model import PACKAGED

PHOTOGRAPHS = Path(matplotlib.get_data_path()) / "sample_data"


def speciarl(*arguments, cwd):
    return subprocess.run(
        [Path(sys.executable).parent / "speciarl", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    files = [p for p in sorted(PHOTOGRAPHS.iterdir()) if p.suffix in (".jpg", ".png")]
    assert files, "matplotlib ships sample images"
    for path in files:
        shutil.copy(path, folder)
    labels = ["hooded warbler", "beagle", "sunflower"]
    (folder / "labels.csv").write_text(
        "file,label\n" + "".join(f"{p.name},{label}\n" for p, label in zip(files, labels * len(files)))
    )
    return folder


def test_evaluating_photographs_then_scoring_the_run(photographs, tmp_path):
    done = speciarl(
        "evaluate", "--model", "fieldguide-base", "--data", photographs, "--n", 2, "--out", "run", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    card = json.loads((run / "card.json").read_text())
    with open(run / "verdicts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    images = len(list(photographs.iterdir())) - 1
    assert card["finished"] and card["counts"]["answers"] == len(rows) == 2 * images
    assert all(row["category"] or row["reason"] for row in rows), "a verdict, or why there is none"
    before = (run / "predictions.jsonl").read_bytes()
    again = speciarl(
        "evaluate", "--model", "fieldguide-base", "--data", photographs, "--n", 2, "--out", "run", cwd=tmp_path
    )
    assert again.returncode == 0 and (run / "predictions.jsonl").read_bytes() == before
    scored = speciarl("score", "run", "--out", "scores", cwd=tmp_path)
    assert scored.returncode == 0 and "best" in scored.stdout.lower(), scored.stderr
    assert {"scores.csv", "scores.tex", "scores.pdf"} <= {p.name for p in (tmp_path / "scores").iterdir()}


def test_training_a_recipe_then_evaluating_it(photographs, tmp_path):
    trained = speciarl(
        "train",
        "smoke/speciarl",
        "--out",
        "run",
        *(
            x
            for s in (
                "steps=2",
                "data.birds=8",
                "prompts_per_generation=2",
                "prompts_per_step=2",
                "rollouts=4",
                "micro_batch=8",
            )
            for x in ("--set", s)
        ),
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    assert card["recipe"]["steps"] == 2 and len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2
    done = speciarl(
        "evaluate", "--model", "run/policy", "--data", photographs, "--limit", 1, "--out", "tested", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    again = speciarl("train", "smoke/speciarl", "--out", "run", cwd=tmp_path)
    assert again.returncode == 2 and len(again.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "content, words", [(b"", "empty"), (b"\x89PNG\r\n\x1a\nrubbish", "bad.png"), ("half", "bad.png")]
)
def test_a_broken_picture_is_counted_and_the_others_are_asked(photographs, tmp_path, content, words):
    if content == "half":
        whole = next(photographs.glob("*.jpg")).read_bytes()
        content = whole[: len(whole) // 2]
    (photographs / "bad.png").write_bytes(content)
    with open(photographs / "labels.csv", "a") as file:
        file.write("bad.png,beagle\n")
    done = speciarl("evaluate", "--model", "fieldguide-base", "--data", photographs, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 unreadable images" in done.stdout and words in (tmp_path / "run" / "samples.csv").read_text()


def test_a_model_folder_without_processor(photographs, tmp_path):
    model = shutil.copytree(PACKAGED["fieldguide-base"], tmp_path / "model")
    (model / "preprocessor_config.json").unlink()
    done = speciarl("evaluate", "--model", model, "--data", photographs, "--out", "run", cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert (
        done.stderr
        == f"error: {model}: the folder has no image processor (preprocessor_config.json); save model and processor "
        "there with save_pretrained\n"
    )
