"""Artefacts and the laboratory: computed once, whoever asks, and again when they are damaged."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
import yaml
from PIL import Image
from refusal import message

from speciarl.compendium.artefacts import LOGS, ArtefactStore
from speciarl.compendium.compute import sample_answers
from speciarl.compendium.lab import COMPUTE, Lab
from speciarl.compendium.profile import Design, Job, load_profile, seeds_of, title
from speciarl.core.config import ASSETS, available
from speciarl.core.scale import UserError
from speciarl.data.fieldguide import plates
from speciarl.data.trees import load_tree
from speciarl.fine_r1.closed import evaluate_closed
from speciarl.metrics.runs import read_card
from speciarl.policy.model import load_policy
from speciarl.policy.predictions import read_predictions
from speciarl.training.recipe import batch_sizes
from speciarl.training.settings import recipe_judge, training_samples

# Artefacts


def count(folder: Path) -> None:
    with open(folder.parents[1] / "computed.txt", "a") as file:
        file.write(f"{folder.name}\n")
    time.sleep(0.5)
    (folder / "value.txt").write_text("42")


def ask(folder: Path) -> None:
    ArtefactStore(folder / "artefacts").make("slow", {"n": 1}, count)


def test_two_processes_compute_once(tmp_path):
    processes = [multiprocessing.get_context("spawn").Process(target=ask, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len((tmp_path / "computed.txt").read_text().splitlines()) == 1
    assert ArtefactStore(tmp_path / "artefacts").ready("slow", {"n": 1})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("43"),
        lambda path: path.unlink(),
        lambda path: (path.parent / "record.json").write_text("{"),
    ],
)
def test_a_damaged_artefact_is_made_again(tmp_path, damage):
    ask(tmp_path)
    store = ArtefactStore(tmp_path / "artefacts")
    damage(store.path("slow", {"n": 1}) / "value.txt")
    assert not store.ready("slow", {"n": 1})
    ask(tmp_path)
    assert store.ready("slow", {"n": 1}) and (store.path("slow", {"n": 1}) / "value.txt").read_text() == "42"


def test_a_failed_computation_leaves_nothing(tmp_path):
    def broken(folder):
        (folder / "half.txt").write_text("4")
        raise ValueError("no")

    store = ArtefactStore(tmp_path)
    with pytest.raises(ValueError):
        store.make("slow", {}, broken)
    assert not store.ready("slow", {}) and not store.path("slow", {}).exists()


# The laboratory, with pretended computations (workers import this module)


def pretend(lab, job, folder):
    needs = [(lab.make(need) / "made.txt").read_text() for need in lab.needs(job)]
    (folder / "made.txt").write_text(f"{job} from {needs}")


def refuse(lab, job, folder):
    raise UserError("the trees have no such domain")


def crash(lab, job, folder):
    os._exit(9)


def linger(lab, job, folder):
    (lab.root / "worker.pid").write_text(str(os.getpid()))
    time.sleep(60)


def laboratory(root, workers=2, **compute):
    return Lab("smoke", root, workers=workers, compute={**dict.fromkeys(COMPUTE, pretend), **compute})


def made(lab):
    return {path.parent.name: path.read_text() for path in lab.store.folder.glob("*/made.txt")}


def test_workers_and_order_do_not_matter(tmp_path, capsys):
    first, second = laboratory(tmp_path / "first"), laboratory(tmp_path / "second", workers=0)
    jobs = first.design.jobs(first.design.names("main"), first.design.domains)
    count = 2 * 6 * 3 + 8 + 2 * 8 * 6  # predictions and verdicts of the base, policies, theirs
    assert first.ensure(jobs) == second.ensure(jobs[::-1]) == count
    assert made(first) == made(second) and len(made(first)) == count
    assert first.ensure(jobs) == 0
    assert "34 of 34 done" in capsys.readouterr().out


def test_methods_share_what_is_the_same(tmp_path):
    lab = laboratory(tmp_path)
    assert lab.design.job("zero-shot", 0, "cars") == Job(
        "verdicts", "base", 0, "cars", "general", 1, lab.profile.test_images
    )
    best = lab.design.job("best of N", 0, "cars")
    assert (best.n, best.images) == (lab.profile.best_of, lab.profile.best_of_images) and best.policy == "base"
    assert lab.design.seeds("zero-shot") == [lab.profile.seeds[0]] and lab.design.seeds("SpeciaRL") == lab.profile.seeds


def tiny(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("like: smoke\nablations: [scala1]\nfine_r1: {}\n" + text)
    return path


def test_one_training_for_methods_that_differ_in_the_question_only(tmp_path):
    lab = Lab(
        tiny(
            tmp_path / "p.yaml",
            "methods: {asked otherwise: {recipe: speciarl, prompt: specific}, trained otherwise: {recipe: speciarl, "
            "changes: [kl=0.1]}}",
        ),
        tmp_path,
        workers=0,
    )
    assert (
        lab.design.job("asked otherwise", 1) == lab.design.job("SpeciaRL", 1) != lab.design.job("trained otherwise", 1)
    )
    assert (
        lab.design.job("asked otherwise", 1, "cars").prompt == "specific"
        and lab.design.job("SpeciaRL", 1, "cars").prompt == "general"
    )


def test_a_start_comes_first_and_is_in_the_key(tmp_path):
    lab = Lab(
        tiny(tmp_path / "p.yaml", "methods: {SFT then SpeciaRL: {recipe: speciarl, start: SFT}}"),
        tmp_path,
        workers=0,
        compute=dict.fromkeys(COMPUTE, pretend),
    )
    job = lab.design.job("SFT then SpeciaRL", 1)
    assert (
        lab.needs(job) == [Job("policy", "SFT", 1)]
        and lab.keys.key(job)["needs"] == [lab.keys.name(Job("policy", "SFT", 1))]
        and lab.keys.key(job)["inputs"]["policy"] is None
    )
    verdicts = lab.design.job("SFT then SpeciaRL", 1, "cars")
    start, asked = (Job("policy", "SFT", 1),), (verdicts._replace(kind="predictions"), verdicts)
    assert lab.missing([verdicts]) == {start: set(), (job,): {start}, asked: {(job,)}}
    assert lab.design.recipe("SFT").export == "merged" and lab.started_recipe(job).policy == str(
        lab.store.path("policy", lab.keys.key(Job("policy", "SFT", 1))) / "policy"
    )


def test_siblings_are_those_of_training_and_test(tmp_path):
    lab = laboratory(tmp_path)
    assert (
        lab.design.recipe("siblings 5").siblings
        == lab.design.job("siblings 5", 0, "cars").siblings
        == lab.design.job("zero-shot siblings 5", 0, "cars").siblings
        == 5
    )
    seen = lab.samples(lab.design.job("zero-shot siblings 5", 0, "cars"))
    assert len(seen) == lab.profile.sizes["ablation"].images and {sample.id for sample in seen} == {
        f"cars-test-0-{i:05d}" for i in range(len(seen))
    }
    assert [s.label for s in seen] != [s.label for s in lab.samples(lab.design.job("zero-shot", 0, "cars"))][
        : len(seen)
    ]


# Keys


def names(lab, method="SpeciaRL"):
    trained = lab.design.job(method, 0, "cars")
    return [lab.keys.name(job) for job in (lab.design.job(method, 0), trained._replace(kind="predictions"), trained)]


def test_keys_follow_the_judge_and_not_the_lock(tmp_path):
    before = names(laboratory(tmp_path))
    judged = Lab(tiny(tmp_path / "judged.yaml", "judge: {strict: false}"), tmp_path)
    assert [a == b for a, b in zip(before, names(judged))] == [True, True, False]
    model = "judge: {kind: llm, strict: false, model: judge, url: 'http://localhost:%d/v1', prompt: %s}"
    asked = [
        names(Lab(tiny(tmp_path / "asked.yaml", model % told), tmp_path))
        for told in ((1, "base_single"), (2, "base_single"), (1, "soft_single"))
    ]
    assert asked[0] == asked[1], "where the server is does not matter, nor whether it is there"
    assert [a == b for a, b in zip(asked[0], asked[2])] == [True, True, False]
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    assert names(laboratory(tmp_path)) == before


def test_the_judge_that_trains_may_be_another_than_the_one_that_evaluates(tmp_path):
    "A policy's key holds who trained it, a verdict's who evaluated; both stand under every table."
    judge = "judge: {kind: llm, strict: false, model: %s, url: 'http://localhost:1/v1', prompt: base_single}\n"
    recipe = tmp_path / "asks.yaml"
    recipe.write_text((ASSETS / "recipes/smoke/scala1.yaml").read_text() + "judge_model: any\n")
    recipe.write_text(recipe.read_text().replace("judge: taxonomy", "judge: llm"))
    method = f"methods: {{asks: {{recipe: {recipe}}}}}\n"

    def told(text):
        lab = Lab(tiny(tmp_path / "two.yaml", method + text), tmp_path)
        return lab.design, names(lab, "asks")

    both, one = told(judge % "qwen" + ("training_" + judge) % "qwen"), told(judge % "qwen")
    assert both[1] == one[1] and "in training" not in one[0].stamp(), "one judge, said twice"
    trained = told(judge % "qwen" + ("training_" + judge) % "llama")
    assert trained[0].recipe("asks").judge_model == "llama"
    assert trained[0].stamp().endswith("Judge: qwen, prompt base_single; in training: llama, prompt base_single.")
    assert trained[1][0] != one[1][0]
    evaluated = told(judge % "llama" + ("training_" + judge) % "qwen")
    assert evaluated[1][0] == one[1][0] and evaluated[1][1] == one[1][1] and evaluated[1][2] != one[1][2]


def test_the_paper_profile_trains_and_evaluates_with_two_models_as_the_release_does():
    paper = load_profile("paper")
    assert paper.judge.model == "meta-llama/Meta-Llama-3-70B-Instruct" and paper.trains.model.startswith("Qwen/Qwen3")
    assert paper.judge.url != paper.trains.url
    for name in ("smoke", "laptop"):
        assert load_profile(name).training_judge is None


# Trees and pictures of one's own


DOGS = "@dataset dogs\n@title Dogs\n@domain dog\ndog\n  spitz\n    * samoyed\n  terrier\n    * westie\n"
OWN = "data_root: pictures\ndata: {mine: [dogs]}\njudge: {strict: false}\n"


@pytest.fixture
def own(tmp_path):
    "A checkout with four pictures in folders of classes, and a profile that tests on them, without a tree."
    for i in range(4):
        picture = tmp_path / "pictures" / "dogs" / ("samoyed", "westie")[i % 2] / f"{i}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (56, 56), (60 * i, 90, 30)).save(picture)
    return tiny(tmp_path / "own.yaml", OWN)


def keys_of(lab, domain="dogs", method="SpeciaRL"):
    return [lab.keys.name(lab.design.job(method, 0, domain, kind)) for kind in ("predictions", "verdicts")]


def test_a_profile_tests_on_a_folder_with_the_tree_beside_it(own, tmp_path):
    (tmp_path / "pictures" / "dogs" / "labels.tree").write_text(DOGS)
    lab = Lab(own, tmp_path, workers=0)
    rows = lab.rows("zero-shot", 0, "dogs")
    assert [row["label"] for row in rows] == ["samoyed"] * 2 + ["westie"] * 2 and {row["dataset"] for row in rows} == {
        "dogs"
    }
    card = read_card(lab.run("zero-shot", 0, "dogs"))
    assert card["trees"] == {"dogs": load_tree(tmp_path / "pictures" / "dogs" / "labels.tree").digest}
    [verdict] = lab.instruments.judge([("westie", "terrier")], ["dogs"])
    assert verdict.category.wire == "less specific"


def test_trees_of_a_profile_judge_and_count_by_their_bytes(own, tmp_path):
    (tmp_path / "my.tree").write_text(DOGS)
    own.write_text(own.read_text() + "trees: [my.tree]\n")
    lab = Lab(own, tmp_path)
    [verdict] = lab.instruments.judge([("westie", "terrier")], [None])
    assert verdict.category.wire == "less specific"
    asked, judged = keys_of(lab)
    trained = lab.keys.name(lab.design.job("SpeciaRL", 0))
    (tmp_path / "my.tree").rename(tmp_path / "other.tree")
    own.write_text(own.read_text().replace("my.tree", "other.tree"))
    assert keys_of(Lab(own, tmp_path)) == [asked, judged], "where a tree lies does not matter"
    (tmp_path / "other.tree").write_text(DOGS.replace("terrier\n", "terrier\n    airedale\n", 1))
    changed = Lab(own, tmp_path)
    assert keys_of(changed)[0] == asked and keys_of(changed)[1] != judged
    assert changed.keys.name(changed.design.job("SpeciaRL", 0)) == trained, "it learns from drawn birds"


def test_a_tree_that_is_not_there_is_refused_at_once(own, tmp_path):
    own.write_text(own.read_text() + "trees: [my.tree]\n")
    assert message(Lab, own, tmp_path).startswith(f"profile smoke: no label tree '{tmp_path}/my.tree': use one of ")


def test_a_training_in_a_profile_learns_from_pictures_of_ones_own(own, tmp_path):
    (tmp_path / "my.tree").write_text(DOGS)
    text = own.read_text() + "trees: [my.tree]\nmethods: {own: {recipe: speciarl, changes: ['data={dogs: 4}']}}\n"
    own.write_text(text)
    lab = Lab(own, tmp_path)
    recipe = lab.started_recipe(lab.design.job("own", 0))
    assert recipe.trees == [str(tmp_path / "my.tree")]
    place = lab.instruments.data_root
    assert {sample.label for sample in training_samples(recipe, place)} == {"samoyed", "westie"}
    [verdict] = recipe_judge(recipe, root=place)([("westie", "terrier")], [None])
    assert verdict.category.wire == "less specific"
    before = lab.keys.name(lab.design.job("own", 0))
    (tmp_path / "my.tree").write_text(DOGS.replace("terrier\n", "terrier\n    airedale\n", 1))
    changed = Lab(own, tmp_path)
    assert changed.keys.name(changed.design.job("own", 0)) != before


def test_pictures_of_ones_own_count_in_keys(own, tmp_path):
    (tmp_path / "my.tree").write_text(DOGS)
    before = keys_of(Lab(own, tmp_path))
    assert keys_of(Lab(own, tmp_path)) == before
    Image.new("RGB", (80, 56)).save(tmp_path / "pictures" / "dogs" / "samoyed" / "new.png")
    assert not set(keys_of(Lab(own, tmp_path))) & set(before)


# Faults


def test_errors_of_workers(tmp_path):
    wanted = laboratory(tmp_path).design.jobs(["zero-shot"], ["cars", "food"])
    assert message(laboratory(tmp_path, verdicts=refuse).ensure, wanted) == "the trees have no such domain"
    assert message(laboratory(tmp_path, verdicts=crash).ensure, wanted) == (
        f"a worker process died (out of memory?), see {tmp_path}/.speciarl/workers.log; start again: what is "
        "finished is kept, and fewer workers need less memory"
    )
    assert laboratory(tmp_path).ensure(wanted) == 2, "the predictions were kept"


def test_unknown_names(tmp_path):
    assert (
        message(Lab, "huge", tmp_path)
        == "unknown profile 'huge': use one of laptop, paper, smoke, or the path of a YAML file"
    )
    lab = laboratory(tmp_path)
    known = ", ".join(lab.design.methods)
    assert (
        message(lab.design.seeds, "magic")
        == message(lab.design.wanted, ["magic"])
        == f"unknown method 'magic'; there are: {known}"
    )
    assert (
        message(lab.design.names, "other") == "unknown group 'other'; there are: main, ablation, fine_r1, photographs"
    )
    assert message(lab.design.recipe, "zero-shot").startswith("unknown trained method 'zero-shot'; there are: SFT, ")
    assert (
        message(lab.design.job, "SFT", 0, "cub200")
        == "unknown data set 'cub200'; there are: birds, flowers, food, pets, cars, aircraft"
    )


def test_a_benchmark_without_its_folder(tmp_path):
    (tmp_path / "p.yaml").write_text("like: paper\ndata_root: null\n")
    lab = Lab(tmp_path / "p.yaml", tmp_path)
    assert message(lab.samples, lab.design.job("zero-shot", 0, "cub200")) == (
        "profile paper tests on cub200: say where the data sets lie, in a profile of your own (like: paper, "
        "data_root: FOLDER)"
    )
    assert message(Lab("paper", tmp_path).samples, lab.design.job("zero-shot", 0, "cub200")).startswith(
        f"{tmp_path}/data/cub200"
    )


# Profiles


@pytest.mark.parametrize("name", available("profiles"))
def test_packaged_profiles(tmp_path, name):
    lab = Lab(name, tmp_path)
    assert lab.profile.name == name and list(lab.design.groups) == ["birds", "fine-grained", "very fine-grained"]
    assert {"zero-shot", "be specific", "best of N", "SFT", "SFT on own best answers", "RFT", "SpeciaRL"} <= set(
        lab.design.names("main")
    )
    for method in lab.design.methods:
        if lab.design.trained(method):
            assert (
                lab.design.recipe(method, 1).policy == lab.profile.asked(method)
                and lab.design.recipe(method, 1).seed == 1
            )
        assert lab.design.jobs([method]), method


def test_the_same_ablations_in_every_profile(tmp_path):
    small, laptop, paper = (Lab(name, tmp_path).design.names("ablation") for name in ("smoke", "laptop", "paper"))
    assert small == laptop and [name for name in small if "siblings" not in name] == paper
    assert [seeds_of(load_profile("laptop"), name) for name in ("SpeciaRL", "speciarl", "zero-shot")] == [
        [0, 1, 2, 3, 4],
        [0, 1, 2],
        [0],
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "images: 7",
            "unknown key 'images'; it may have: policy, data, data_root, trees, splits, test_images, best_of, "
            "best_of_images, max_tokens, judge, training_judge, engine, batch, name, scale, recipes, methods, seeds, "
            "sizes, workers, minutes, needs_cuda",
        ),
        ("seeds: []", "seeds: List should have at least 1 item after validation, not 0"),
        ("best_of: many", "best_of: Input should be a valid integer, unable to parse string as an integer"),
        (
            "methods: {a: {recipe: sft, step: 3}}",
            "method a: unknown key 'step'; it may have: recipe, policy, start, changes, rationales, siblings, "
            "prompt, seeds, best, closed, variant, group",
        ),
        ("methods: {a: {changes: [steps=3]}}", "method a: the file: start and changes need a recipe"),
        ("methods: {a: {recipe: magic}}", "the file: method a: there is no recipe 'magic' in smoke, and no such file"),
        (
            "methods: {a: {recipe: sft, start: zero-shot}}",
            "the file: method a: it starts from 'zero-shot', which trains no policy",
        ),
        (
            "methods: {a: {recipe: sft, start: SFT, seeds: [7]}}",
            "the file: method a: it has seeds that 'SFT', its start, has not",
        ),
        ("ablations: [scala1, SFT: {recipe: sft}]", "method 'SFT' is there twice; give one another name"),
        ("ablations: scala1", "ablations: expected methods by name, or a list of recipes"),
        ("data: {other: [birds]}", "the file: data: a data set is in two groups; name it once"),
        ("sizes: {ablation: {data: [cub200]}}", "the file: sizes: ablation tests on ['cub200'], which is not in data"),
        ("judge: {kind: llm, strict: false}", "the file: judge: kind llm needs a model and its url"),
        (
            "judge: {kind: cascade}",
            "judge: the judge cascade cannot be strict: a language model decides what the label trees cannot place; "
            "leave out strict, or use taxonomy",
        ),
        (
            "sizes: {fine_r1: {policy: other}}",
            "the file: sizes: fine_r1 has a policy of its own; give it data of its own, too",
        ),
        (
            "sizes: {fine_r1: {policy: other, data: [cars]}, ablation: {data: [cars]}}",
            "the file: sizes: ablation tests on data that a group with a policy of its own has for itself",
        ),
        (
            "sizes: {fine_r1: {policy: other, data: [cars]}}",
            "the file: method CoT SFT: closed asks about the profile's own data, not those of fine_r1",
        ),
        ("like: huge", "unknown profile 'huge'; there are: laptop, paper, smoke"),
    ],
)
def test_profiles_that_are_wrong(tmp_path, text, expected):
    path = tmp_path / "p.yaml"
    path.write_text(text if text.startswith("like") else f"like: smoke\n{text}\n")
    assert (
        message(load_profile, path).removeprefix("p.yaml: ").removeprefix("methods: " if "twice" in text else "")
        == expected
    )


# A group with a world of its own


def worlds(path):
    "A profile like smoke in which the photographs are drawn cars and aircraft."
    values = yaml.safe_load((ASSETS / "profiles" / "smoke.yaml").read_text(encoding="utf-8"))
    values["data"].pop("photographs", None)
    values["photographs"] = {
        "photo zero-shot": {},
        "photo best of N": {"best": True},
        "photo RFT": {"recipe": "rft"},
        "photo again": {"recipe": "rft", "prompt": "specific"},
    }
    values["sizes"]["photographs"] = {
        "policy": "fieldguide-base",
        "data": ["cars", "aircraft"],
        "images": 3,
        "best_of_images": 2,
        "scale": "two domains",
    }
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_a_group_with_a_policy_and_data_of_its_own(tmp_path):
    profile = load_profile(worlds(tmp_path / "p.yaml"))
    design, plain = Design(profile), Design(load_profile("smoke"))
    assert design.domains == ["birds", "flowers", "food", "pets"] and "very fine-grained" not in design.groups
    assert design.tested("photo RFT") == ["cars", "aircraft"] and design.tested("RFT") == design.domains
    assert design.names("photographs") == ["photo zero-shot", "photo best of N", "photo RFT", "photo again"]
    first, best, trained = (design.job(name, 0, "cars") for name in design.names("photographs")[:3])
    assert (first.policy, first.images, best.images, best.n) == ("fieldguide-base", 3, 2, profile.best_of)
    assert trained.policy == design.job("photo again").policy == "photo RFT" and design.job("RFT").policy == "RFT"
    assert message(design.job, "photo RFT", 0, "birds") == "unknown data set 'birds'; there are: cars, aircraft"
    assert message(design.job, "RFT", 0, "cars").startswith("unknown data set 'cars'; there are: birds, flowers")
    assert design.judged_with("cars") == ["aircraft", "cars"] and design.judged_with("birds") == sorted(design.domains)
    assert {job.domain for job in design.jobs(design.methods, ["birds", "cars"])} == {"birds", "cars"}
    assert "two domains" in design.stamp(group="photographs") and "two domains" not in design.stamp()
    assert plain.judged_with("cars") == sorted(plain.domains) and design.choices("photo RFT") == []


@pytest.mark.parametrize("name", ["smoke", "laptop"])
def test_the_packaged_profiles_ask_about_photographs(tmp_path, name):
    lab = Lab(name, tmp_path)
    design, methods = lab.design, lab.design.names("photographs")
    assert not [domain for domain in design.domains if domain.startswith("photo-")]
    assert not [job for job in design.wanted(["main", "ablation", "fine_r1"]) if job.domain.startswith("photo-")]
    assert all(job.domain.startswith("photo-") for job in design.jobs(methods))
    for method in methods:
        assert method.startswith("photo ") and lab.profile.asked(method) == "photo-base"
        if design.trained(method):
            recipe = design.recipe(method)
            assert list(recipe.data) == ["photo-birds"] and recipe.policy == "photo-base" and batch_sizes(recipe)
    judge = lab.instruments.judge_of(design.judged_with("photo-pets"))
    assert set(judge.trees) == {"cub200", "flowers102", "food101", "oxford_pets", "stanford_cars"} and judge.strict
    assert {job.images for job in design.jobs(["photo best of N"])} == {lab.profile.sizes["photographs"].best_of_images}


def test_each_world_is_judged_by_its_own_trees(tmp_path):
    lab = Lab(worlds(tmp_path / "p.yaml"), tmp_path, workers=0)
    told = {}
    for name, where in (("zero-shot", "birds"), ("photo zero-shot", "cars")):
        judge = lab.instruments.judge_of(lab.design.judged_with(where))
        assert list(judge.trees) == lab.design.judged_with(where) and judge.strict
        told[where] = lab.keys.key(lab.design.job(name, 0, where))["inputs"]["judge"]["trees"]
        assert told[where] == judge.identity, "the key names the judge that judges"
    assert told["birds"] != told["cars"]


def test_a_world_beside_them_changes_no_key_of_the_others(tmp_path):
    """The trees that judge the drawn domains are what they were: a group of photographs adds keys and moves none."""
    values = yaml.safe_load(worlds(tmp_path / "p.yaml").read_text())
    values["data"]["photographs"] = values["sizes"]["photographs"]["data"] = ["cub200"]
    (tmp_path / "beside.yaml").write_text(yaml.safe_dump(values))
    del values["sizes"]["photographs"], values["data"]["photographs"], values["photographs"]
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(values))
    plain, beside = (Lab(tmp_path / f"{name}.yaml", tmp_path) for name in ("plain", "beside"))
    jobs = plain.design.wanted(["main", "ablation"])
    assert jobs == beside.design.wanted(["main", "ablation"])
    assert [plain.keys.name(job) for job in jobs] == [beside.keys.name(job) for job in jobs]


# Real answers, and the same ones published


def trained(lab, job, folder):
    "In place of hours: the base policy, and one line of a log."
    shutil.copytree(ASSETS / "fieldguide_base", folder / "policy")
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n')


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    root = tmp_path_factory.mktemp("lab")
    profile = tiny(root / "p.yaml", "seeds: [0]\ntest_images: 5\nbest_of: 4\nbest_of_images: 3\nmax_tokens: 12")
    lab = Lab(profile, root, workers=0, compute={**COMPUTE, "policy": trained})
    return root, profile, lab, lab.export_predictions(root / "published", ["zero-shot", "best of N", "SFT"])


def test_what_is_read(answered):
    root, profile, lab, files = answered
    assert lab.codes("best of N", 0, ["cars", "pets"]).shape == (6, 4) and lab.categories(
        "SFT", lab.design.domains
    ).shape == (1, 30)
    assert (lab.codes("SFT", 0, ["cars"]) == lab.codes("zero-shot", 0, ["cars"])).all(), "it is the base policy"
    rows, judged = lab.rows("zero-shot", 0, "cars"), lab.judged("zero-shot", 0, "cars")
    assert (
        [row["sample_id"] for row in rows]
        == [name for _, name in judged.keys]
        == [f"cars-test-0-{i:05d}" for i in range(5)]
    )
    assert lab.log("SFT") == [{"step": 1, "loss": 0.5, "seed": 0}]
    assert lab.policy("zero-shot") == ASSETS / "fieldguide_base" and (lab.policy("SFT") / "model.safetensors").is_file()
    assert {path.name for path in lab.run("SFT", 0, "cars").iterdir()} == {
        "card.json",
        "predictions.parquet",
        "record.json",
        "verdicts.csv",
        "verdicts.jsonl",
    }


def test_the_closed_world_is_asked_as_its_module_asks(answered):
    root, profile, lab, files = answered
    found, plates = lab.closed("zero-shot"), lab.samples(lab.design.choices("zero-shot")[0])
    direct = evaluate_closed(load_policy(lab.policy("zero-shot")), plates, max_tokens=12)
    assert (found.texts, found.choices) == (direct.texts, direct.choices) and len(found.questions) == 10
    assert [one.options for one in found.questions] == [one.options for one in direct.questions] and [
        one.sample.id for one in found.questions
    ] == [plate.id for plate in plates]
    assert (
        message(lab.closed, "SFT") == "method SFT is not asked with options; give it closed: N (images) in the profile"
    )


def test_published_answers_are_small_and_need_no_policy(answered, tmp_path):
    root, profile, lab, files = answered
    assert [path.name for path in files] == [
        "SFT_general_n1_5-images_seed-0.parquet",
        "base_closed-world_n1_10-images_seed-0.parquet",
        "base_general_n1_5-images_seed-0.parquet",
        "base_general_n4_3-images_seed-0.parquet",
        LOGS,
    ]
    (tmp_path / ".speciarl").mkdir()
    (tmp_path / ".speciarl/published").symlink_to(root / "published")
    reader = Lab(profile, tmp_path, workers=0, compute={**COMPUTE, "policy": refuse})
    wanted = reader.design.wanted(["zero-shot", "best of N", "SFT"])
    reader.ensure(wanted)
    assert [reader.keys.name(job) for job in wanted] == [lab.keys.name(job) for job in wanted], (
        "the records are the same"
    )
    for job in wanted[1:]:
        if job.kind == "verdicts":
            assert (reader.get(job) / "verdicts.csv").read_bytes() == (lab.get(job) / "verdicts.csv").read_bytes()
    assert (
        reader.closed("zero-shot") == lab.closed("zero-shot")
        and reader.log("SFT") == lab.log("SFT")
        and not list(reader.store.folder.glob("policy-*"))
    )
    assert (
        message(reader.policy, "SFT")
        == f"no policy SFT seed 0 in {tmp_path}/.speciarl/published: answers and training logs are published, "
        "policies are not; work without the published predictions"
    )
    missing = reader.design.job("be specific", 0, "cars")
    assert (
        message(reader.get, missing)
        == f"no {title(missing._replace(kind='predictions'))} in {tmp_path}/.speciarl/published; publish it there, "
        "or work without the published predictions"
    )
    assert [
        path.read_bytes() for path in reader.export_predictions(tmp_path / "again", ["zero-shot", "best of N", "SFT"])
    ] == [path.read_bytes() for path in files], "what was published can be published again"


def test_folders_that_hold_something_else(answered, tmp_path):
    root, profile, lab, files = answered
    (tmp_path / "notes.txt").write_text("mine")
    assert (
        message(lab.export_predictions, tmp_path, ["zero-shot"])
        == f"{tmp_path} holds other files (notes.txt); give an empty folder"
    )
    (tmp_path / ".speciarl/published").mkdir(parents=True)
    assert (
        message(Lab, profile, tmp_path)
        == f"{tmp_path}/.speciarl/published: no published predictions in it; give the folder that export_predictions "
        "wrote"
    )


def test_published_answers_about_other_images(answered, tmp_path):
    root, profile, lab, files = answered
    (tmp_path / ".speciarl").mkdir()
    (tmp_path / ".speciarl/published").symlink_to(root / "published")
    reader = Lab(profile, tmp_path, workers=0)
    reader.samples = lambda job: lab.samples(job._replace(siblings=5))
    assert "these are predictions of another data set or split" in message(
        reader.get, reader.design.job("zero-shot", 0, "cars")
    )


# Kills


LINGERED = Job("predictions", "base", 0, "cars", "general", 1, 10)


def run_lingering(root):
    laboratory(Path(root), predictions=linger).ensure([LINGERED])


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_workers_end_with_a_killed_parent(tmp_path):
    parent = multiprocessing.get_context("spawn").Process(target=run_lingering, args=(tmp_path,))
    parent.start()
    pid = tmp_path / "worker.pid"
    wait_for(lambda: pid.exists() and pid.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    wait_for(lambda: not alive(int(pid.read_text())))
    assert laboratory(tmp_path).ensure([LINGERED]) == 1, "the lock is free again"


# What the file of predictions says of the pictures


class Bounded:
    "An engine that answers at once, with a bound on pictures."

    together, batch, limit = False, None, None

    def __init__(self, max_pixels):
        self.max_pixels = max_pixels

    def ask(self, samples, prompt, how):
        yield from ((place, ["<answer> bird </answer>"] * how.n) for place in range(len(samples)))

    def describe(self):
        return {"engine": "toy", "model": "toy", "max_pixels": self.max_pixels}

    def agreed(self):
        return {}


@pytest.mark.parametrize("max_pixels, noted", [(1_003_520, False), (3_136, False), (3_135, True)])
def test_the_bound_of_pictures_is_noted_unless_no_plate_reaches_it(tmp_path, max_pixels, noted):
    job = Job("predictions", "base", domain="birds", prompt="general", n=1, images=2)
    sample_answers(Bounded(max_pixels), plates("birds", "test", 2), job, tmp_path, 16)
    settings = read_predictions(tmp_path / "predictions.parquet").card["settings"]
    assert settings.get("max_pixels") == (max_pixels if noted else None)
