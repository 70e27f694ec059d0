"""What text, tables and heads of recipes claim of the laptop profile is what recipes, logs and answers say."""

import csv
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import yaml

from speciarl.compendium.artefacts import Published
from speciarl.compendium.profile import Design, load_profile
from speciarl.core.config import ASSETS, available
from speciarl.core.scale import UserError
from speciarl.data.photographs import PHOTOGRAPHS, photographs
from speciarl.data.samples import Sample
from speciarl.fine_r1.closed import parts_by_split
from speciarl.metrics.compare import LEVEL, holm, in_words
from speciarl.training.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
TABLES = ROOT / "paper" / "tables" / "laptop"
TEXT = (ROOT / "paper" / "paper.md").read_text(encoding="utf-8")
LISTS = yaml.safe_load((ROOT / "paper" / "manifest.yaml").read_text(encoding="utf-8"))
DESIGN = Design(load_profile("laptop"))


@pytest.fixture(scope="module")
def published():
    return Published(ROOT / "paper" / "predictions" / "laptop")


def rows(name: str) -> list[dict[str, str]]:
    with (TABLES / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def notes(name: str) -> str:
    "What stands under a table: caption and notes."
    return (TABLES / f"{name}.md").read_text(encoding="utf-8").partition("\nTable: ")[2]


@cache
def values(name: str) -> dict:
    return json.loads((TABLES / f"{name}.values.json").read_text(encoding="utf-8"))


def number(text: str) -> int:
    return int(text.replace(",", ""))


# sizes


@pytest.mark.parametrize("name", [name for name in available("recipes") if not name.startswith("paper/")])
def test_the_head_of_a_recipe_gives_its_own_sizes(name):
    "What was published stands in brackets; a number of plates or images outside of them is what the file draws."
    head = (ASSETS / "recipes" / f"{name}.yaml").read_text(encoding="utf-8").split("name:")[0]
    own = re.sub(r"\(published[^)]*\)", "", head)
    drawn = load_recipe(name).data.values()
    for said in re.findall(r"([\d,]+)\s+(?:plates|images|training images)", own):
        assert number(said) in {*drawn, sum(drawn)}, f"{name} draws {dict(load_recipe(name).data)}"


def test_the_table_of_training_images_gives_the_sizes_that_were_drawn():
    runs = ("speciarl", "data2048", "data1024", "data128")
    drawn = [DESIGN.recipe(run).images for run in runs]
    assert [number(re.match(r"[\d,]+", row["run"])[0]) for row in rows("abl_data")] == drawn
    assert [values("ablations")[f"data.{run}"] for run in runs] == drawn
    reference = DESIGN.recipe("speciarl")
    seen = reference.optimiser_steps * reference.prompts_per_step
    assert f"sees {seen:,} images" in notes("abl_data") and values("ablations")["data.seen"] == seen


def test_logs_have_as_many_steps_as_the_tables_say(published):
    for job, log in published.logs.items():
        recipe = DESIGN.recipe(job.policy, job.seed)
        assert len(log.splitlines()) == recipe.optimiser_steps, job  # of several rounds, the last
    assert f"{DESIGN.recipe('speciarl').optimiser_steps} steps" in values("ablations")["scale"]
    assert values("training")["steps"] == DESIGN.recipe("SpeciaRL").optimiser_steps


def test_answers_are_as_many_as_the_tables_say(published):
    jobs = [job for job in published.files if job.kind == "predictions"]
    counted = {job: published.read(job)[1].num_rows for job in jobs[:: max(1, len(jobs) // 40)]}
    for job, rows in counted.items():
        there = photographs(job.domain).sizes()["test"] if job.domain in PHOTOGRAPHS else job.images  # pets are few
        assert rows == min(job.images, there) * job.n, job
    asked = Counter((job.images, job.n) for job in jobs)
    profile, told = DESIGN.profile, values("benchmark")
    assert (told["plates"], 1) in asked and (told["best_plates"], told["N"]) in asked
    assert {job.seed for job in jobs if job.policy == "SpeciaRL"} == set(profile.seeds)
    assert len(profile.seeds) == told["seeds"]


def test_the_fine_r1_table_says_what_was_seen_and_tested(published):
    method = DESIGN.names("fine_r1")[0]
    [job] = [job for job in DESIGN.jobs([method], DESIGN.groups["birds"]) if job.seed == DESIGN.seeds(method)[0]]
    table = published.read(job._replace(kind="predictions"))[1].to_pylist()
    samples = [Sample(row["sample_id"], "", row["label"], row["dataset"]) for row in table]
    tested = {part: sum(mask) for part, mask in parts_by_split(samples).items()}
    for row in rows("fine_r1"):
        if row["classes"] in tested:
            assert int(row["tested on"]) == tested[row["classes"]]
        own = DESIGN.methods[row["method"]]
        chain = [row["method"]] if own.recipe else []
        while chain and DESIGN.methods[chain[0]].start:
            chain.insert(0, DESIGN.methods[chain[0]].start)
        drawn = [DESIGN.recipe(name, DESIGN.seeds(name)[0]) for name in chain]
        assert [number(n) for n in re.findall(r"([\d,]+) of", row["trained on"])] == [one.images for one in drawn]
        several = any(len(one.data) > 1 for one in drawn)
        assert ("data sets" in row["trained on"]) == several, "who saw other domains is said"


# what is shown


UNTABLED = {"fine_r1_parts", "photo_quoted"}  # corrected, and told in a table's last column or the text alone
FAMILIES = {
    "tests": "p, Holm",
    "photo_tests": "p, Holm",
    **{name: "p (Holm)" for name in LISTS["families"] if name not in ("tests", "photo_tests", *UNTABLED)},
}


def test_every_corrected_table_is_a_family_that_the_manifest_names():
    corrected = {
        path.stem for path in TABLES.glob("*.csv") if "Holm" in path.read_text(encoding="utf-8").splitlines()[0]
    }
    assert corrected == set(FAMILIES) and set(LISTS["families"]) - corrected == UNTABLED
    for name in set(LISTS["families"]) - {"tests", "photo_tests", "photo_quoted"}:
        assert "Family: " in notes(name), name
    assert "over the 45 rows" in notes("tests") and "over the 36 rows" in notes("photo_tests")


@pytest.mark.parametrize("name", FAMILIES)
def test_shown_is_what_the_corrected_p_value_says(name):
    for row in rows(name):
        if row.get("shown"):
            assert (row["shown"] == "yes") == (float(row[FAMILIES[name]]) < LEVEL), row


def test_corrections_are_over_the_family():
    for name in ("tests", "dynamic_static", "photo_tests"):
        table = rows(name)
        assert holm([float(row["p"]) for row in table]).tolist() == pytest.approx(
            [float(row[FAMILIES[name]]) for row in table], abs=2e-3
        )
    assert min(float(row["p"]) for row in rows("tests")) * len(rows("tests")) < LEVEL / 2, "enough draws for the family"


def test_words_of_the_text_follow_the_tables():
    told = values("ablations")
    for stem in ("abl_rules", "abl_anchor", "abl_algorithms", "abl_data", "abl_noise"):
        found = {word: [] for word in ("above", "below", "not")}
        for row in rows(stem):
            if row["p (Holm)"]:
                word = in_words(float(row["HM minus reference"]), float(row["p (Holm)"]))
                found[word.split()[0]].append(row["run"])
        for word, runs in found.items():
            assert all(run in told[f"{stem}.{word}"] for run in runs)
            assert (told[f"{stem}.{word}"] == "none") == (not runs)
    for name, key in (("abl_gains", "gains"), ("abl_siblings", "siblings")):
        shown = [row["shown"] for row in rows(name)]
        assert (told[f"{key}.shown"] == "none") == ("yes" not in shown)
        assert (told[f"{key}.not"] == "none") == ("no" not in shown)
    [tie] = [
        row
        for row in rows("tests")
        if (row["group"], row["run"], row["metric"]) == ("fine-grained", "be specific", "hm")
    ]
    word = in_words(float(tie["difference"]), float(tie["p, Holm"]))
    assert values("benchmark")["be_specific.fine.HM.word"] == word


def test_lists_of_the_text_part_what_is_shown_from_what_is_not():
    for stem in ("abl_rules", "abl_anchor", "abl_data", "abl_noise"):
        assert {f"ablations.{stem}.{word}" for word in ("above", "below", "not")} <= set(
            re.findall(r"\{\{([\w.]+)\}\}", TEXT)
        )
    for key in ("gains", "siblings"):
        assert f"{{{{ablations.{key}.shown}}}}" in TEXT and f"{{{{ablations.{key}.not}}}}" in TEXT


def test_the_worst_classes_say_whether_chance_would_do():
    found = re.findall(
        r"([\w -]+): C of the ten ([\d.]+), dealt out by chance ([\d.]+), p ([\d.]+), (which cannot|worse)",
        notes("worst_classes"),
    )
    assert [name.strip().removeprefix("Permutation test: ") for name, *_ in found] == ["zero-shot", "SpeciaRL"]
    for _, _, _, p, word in found:
        assert (word == "worse") == (float(p) < LEVEL)


# what was run, and who judged


def test_no_table_of_the_laptop_names_another_judge():
    judge = DESIGN.profile.judges()
    for path in TABLES.glob("*.md"):
        said = re.search(r"Profile (\w+): .*Judge: (.*?)\.(?: |$)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if said:
            assert said.groups() == ("laptop", judge), path.name


def test_what_was_published_has_a_status_that_tables_and_profiles_bear_out():
    written = {table for entry in LISTS["notebooks"].values() for table in entry.get("tables", [])}
    for one in LISTS["published"]:
        assert {one["small"], one["large"]} <= {"made", "partly", "not run"}, one
        assert set(one.get("tables", [])) <= written, one
        assert "why" in one or one["small"] == one["large"] == "made", one
        if one["small"] == "made":
            for name in one["tables"]:
                assert rows(name) and "not run" not in (TABLES / f"{name}.csv").read_text(encoding="utf-8"), name
    listed = {one["what"]: one for one in LISTS["published"]}
    assert [row["here"] for row in rows("not_run")] == [one["small"] for one in LISTS["published"]]
    paper = load_profile("paper")
    prompts = {method.prompt for method in paper.methods.values()}
    assert (
        len(prompts - {None, "specific"}) == 5 and listed["five prompt variants beyond be specific"]["large"] == "made"
    )
    assert paper.trains.model != paper.judge.model
    asked = {load_recipe(name).judge_prompt for name in available("recipes")} | {
        paper.judge.prompt,
        paper.trains.prompt,
    }
    assert len(asked) == 1 and listed["seven prompts of the judge"]["large"] == "not run"


def test_the_open_world_table_says_what_was_not_run():
    for row in rows("openworld"):
        absent = {name for name, cell in row.items() if cell == "not run"}
        assert absent == {"Llama inclusion", "semantic similarity", "concept similarity"}
    for name in ("Llama inclusion", "semantic similarity", "concept similarity"):
        assert f"{name}: not run, " in notes("openworld")


def test_sentences_that_were_false_do_not_come_back():
    for said in ("saw the same images, ", "between all pairs of methods", "fixed before any method was trained"):
        assert said not in TEXT.replace("did not see the same images", "")
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        assert "fixed before any method was trained" not in path.read_text(encoding="utf-8"), path


def test_readme_says_of_the_paper_profile_that_nobody_has_run_it():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "Nobody has run it at that size" in readme
    with pytest.raises(UserError):
        Published(ROOT / "paper" / "predictions" / "paper")  # when there are answers, README has to say another thing
