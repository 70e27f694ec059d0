"""The paper profile, run as on a cluster, with a tiny model, miniature data sets, our judge server, the transformers
engine and small sizes in place of the large ones."""

import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from judge_server import judge_server, judge_server_process  # noqa: F401 - fixtures
from layouts import build, classes_of, plan
from PIL import Image
from tiny_models import save
from tokenizers import normalizers

from speciarl.compendium.lab import Lab
from speciarl.compendium.notebook import run_notebook
from speciarl.compendium.paper import entries_of, read_manifest
from speciarl.compendium.profile import load_profile
from speciarl.data.samples import Sample
from speciarl.data.splits import read_split
from speciarl.fine_r1.rationales import Rationale, write_rationales
from speciarl.policy.model import encode, load_policy
from speciarl.policy.prompts import load_prompt

ROOT = Path(__file__).resolve().parents[1]
SETS = {"cub200": 8, "flowers102": 3, "food101": 3, "oxford_pets": 3, "stanford_cars": 3, "fgvc_aircraft": 3}  # classes
SIZES = [
    "epochs=null",
    "steps=1",
    "prompts_per_generation=null",
    "prompts_per_step=2",
    "micro_batch=null",
    "rollouts=4",
    "max_tokens=12",
    "overlong=4",
    "data={cub200: 8}",
]
LORA = ["lora_rank=4", "validation_images=2", "save_every=null"]
WHOLE = [
    "classes=all",
    "shots=null",
    "data={cub200: 16}",
    "validation_images=0",
]  # two of each class, so that there are positives
ENTRIES = entries_of(read_manifest(ROOT), load_profile("paper"))


def teach_form(folder: Path) -> None:
    "A few steps on answers in the right form, so that there is something to reward."
    policy = load_policy(folder)
    words = policy.processor.tokenizer
    texts = [f"<think> in the image </think> <answer> {word} </answer>" for word in ("bird", "warbler", "dog", "None")]
    samples = [Sample(str(i), Image.new("RGB", (32, 32), "olive"), "bird") for i in range(len(texts))]
    answers = torch.tensor([[*words.encode(text, add_special_tokens=False), 3] for text in texts])
    optimiser = torch.optim.AdamW(policy.model.parameters(), 5e-3)
    for prompt in ("general", "specific") * 40:
        asked = encode(policy, samples, load_prompt(prompt))
        length = asked["input_ids"].shape[1]
        grown = {
            name: torch.cat(
                [asked[name], torch.ones_like(answers) if name == "attention_mask" else torch.zeros_like(answers)], 1
            )
            for name in ("attention_mask", "mm_token_type_ids")
            if name in asked
        }
        rest = {name: value for name, value in asked.items() if name not in ("input_ids", *grown)}
        ids = torch.cat([asked["input_ids"], answers], 1)
        labels = torch.where(torch.arange(ids.shape[1]) < length, -100, ids)
        policy.model(input_ids=ids, labels=labels, **grown, **rest).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    words.backend_tokenizer.normalizer = normalizers.Sequence([])
    policy.save(folder)


def overrides(folder: Path, url: str) -> dict:
    "What the test changes in the paper profile: model, data roots, judge, engine, sizes."
    size = {
        group: {"changes": SIZES + more, "seeds": [0]}
        for group, more in (("main", LORA), ("ablation", LORA), ("fine_r1", WHOLE))
    }
    return dict(
        like="paper",
        policy=str(folder / "model"),
        data_root=str(folder / "data"),
        judge={"model": "judge", "url": url, "max_missing": 1},
        training_judge={"model": "trainer", "url": url, "max_missing": 1},
        engine="transformers",
        methods={
            "Qwen2.5-VL-3B": {"policy": str(folder / "model")},
            "InternVL3-8B": {"policy": str(folder / "internvl")},
        },
        fine_r1={
            "CoT SFT": {"rationales": "rationales.jsonl"},
            "CoT SFT 3B": {"rationales": "rationales.jsonl", "policy": str(folder / "model")},
            "SpeciaRL, seen classes": {"changes": []},
            "CoT SFT + SpeciaRL": {"changes": []},
        },
        seeds=[0],
        sizes=size,
        test_images=2,
        best_of=4,
        best_of_images=2,
        max_tokens=12,
        batch=16,
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, judge_server_process):
    "A checkout with everything that the notebooks ask for already made, in this process; and the profile."
    root = tmp_path_factory.mktemp("a checkout")
    torch.set_num_threads(1)
    judge_server_process.set(models=["judge", "trainer"])
    teach_form(save("qwen2_5_vl", root / "model"))
    save("internvl", root / "internvl")
    for name, count in SETS.items():
        splits = {"train": 2, "val": 1, "test": 1, "trainval": 2}
        images = plan(
            name,
            {split: n * count for split, n in splits.items() if split in {s for s, *_ in plan(name)}},
            classes_of(name)[:count],
        )
        build(name, root / "data" / name, images)
    for part in ("nbs", "paper/manifest.yaml", "constraints.txt"):
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(ROOT / part, root / part)
    train = read_split("cub200", root / "data/cub200", "train")
    write_rationales(
        root / "rationales.jsonl",
        [
            Rationale(
                sample_id=s.id,
                label=s.label,
                analysis="a bird",
                candidates=(s.label, "dog"),
                comparison="a dog has fur",
                prediction=s.label,
            )
            for s in train
        ],
    )
    profile = root / "tiny.yaml"
    profile.write_text(yaml.safe_dump(overrides(root, judge_server_process.url), sort_keys=False))
    lab = Lab(profile, root, workers=0)
    lab.ensure(lab.design.wanted(["main", "ablation", "fine_r1"]))
    return root, profile, lab


def test_every_method_has_answers_and_verdicts(cluster):
    root, profile, lab = cluster
    assert lab.profile.name == "paper" and lab.design.domains == list(SETS)
    for method in lab.design.methods:
        for domain in lab.design.domains:
            rows = lab.rows(method, 0, domain)
            assert {row["dataset"] for row in rows} == {domain} and all(
                row["category"] and row["source"] in ("llm", "format") for row in rows
            ), (method, domain)
    judged = json.loads((lab.get(lab.design.job("SpeciaRL", 0, "cub200")) / "card.json").read_text())
    assert judged["judge"] == "judge, prompt base_single" and judged["training_judge"] == "trainer, prompt base_single"
    assert lab.codes("best of N", 0, lab.design.domains).shape == (12, 4) and lab.categories(
        "zero-shot", lab.design.domains
    ).shape == (1, 12)


def test_trainings_are_those_of_the_paper_recipes(cluster):
    root, profile, lab = cluster
    card = json.loads((lab.get(lab.design.job("SpeciaRL", 0)) / "card.json").read_text())["recipe"]
    assert (
        card["name"] == "paper/speciarl"
        and card["rule"] == "dynamic"
        and card["lora_rank"] == 4
        and card["dtype"] == "bfloat16"
    )
    assert (card["engine"], card["judge"], card["judge_model"], card["policy"]) == (
        "transformers",
        "llm",
        "trainer",
        str(root / "model"),
    )
    assert len(lab.log("SpeciaRL")) == len(lab.log("SFT")) == 1


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_notebook(cluster, entry, tmp_path):
    root, profile, lab = cluster
    run_notebook(
        root / "nbs/paper" / f"{entry.name}.ipynb",
        tmp_path / "out.ipynb",
        {"profile": str(profile), "root": str(root)},
        timeout=300,
    )
    assert [name for name in entry.outputs("paper") if not (root / name).is_file()] == []
