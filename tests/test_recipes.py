"Recipes, profiles, prompts: complete files, strictly checked."

from pathlib import Path

import pytest
import yaml

from speciarl.core.config import ASSETS, available
from speciarl.core.scale import UserError, extract_answer
from speciarl.data.sets import EVERYTHING, all_strict, named_set
from speciarl.policy.prompts import load_prompt
from speciarl.training.recipe import load_recipe

PAPER = [
    name.removeprefix("paper/")
    for name in available("recipes")
    if name.startswith("paper/") and not name.startswith("paper/fine_r1")
]
FINE_R1 = {
    "fine_r1_3b": "tapo",
    "fine_r1_7b": "tapo",
    "fine_r1_cot_3b": "cot",
    "fine_r1_cot_7b": "cot",
}  # published run -> its small twins
# what makes a run that samples what it is, whatever its sizes: how answers are drawn, paid, and learned from
ALGORITHM = (
    "rule",
    "anchor_rank",
    "noise",
    "think",
    "kl",
    "loss",
    "scale_rewards",
    "clip_low",
    "clip_high",
    "dual_clip",
    "drop_flat_groups",
    "temperature",
    "top_p",
)


@pytest.mark.parametrize("name", available("recipes"))
def test_every_packaged_recipe_is_valid_and_named_like_its_file(name):
    assert load_recipe(name).name == name


@pytest.mark.parametrize("size", ["smoke", "laptop"])
@pytest.mark.parametrize("name", PAPER)
def test_every_published_run_has_its_small_twins(name, size):
    "A twin is the same method, on drawn plates and the small base; what makes the run what it is, is the same."
    published, twin = load_recipe(f"paper/{name}"), load_recipe(f"{size}/{name}")
    same = ("method", *ALGORITHM)
    assert {key: getattr(twin, key) for key in same} == {key: getattr(published, key) for key in same}
    assert (
        bool(twin.overlong) == bool(published.overlong)
        and twin.policy == "fieldguide-base"
        and len(twin.data) == len(published.data)
    )
    assert twin.rollouts == (10 if name == "domain_birds" else published.rollouts), (
        "the bird run differs from its siblings in the release; its twin is one of them"
    )


@pytest.mark.parametrize("size", ["smoke", "laptop"])
@pytest.mark.parametrize("name", FINE_R1)
def test_the_twins_of_fine_r1_differ_in_sizes_only(name, size):
    published, twin = load_recipe(f"paper/{name}"), load_recipe(f"{size}/{FINE_R1[name]}")
    same = (
        "method",
        "classes",
        "rule",
        "kl",
        "loss",
        "scale_rewards",
        "clip_low",
        "clip_high",
        "dual_clip",
        "temperature",
        "top_p",
        "positives",
        "negatives",
        "inter_weight",
        "entropy_weight",
        "negative_entropy_weight",
        "accuracy_band",
        "train_vision",
        "schedule",
        "warmup_steps",
        "lora_rank",
    )
    assert {key: getattr(twin, key) for key in same} == {key: getattr(published, key) for key in same}


# The released configurations: the main run, and what each other says differently. The number is of generations, counted
# as verl counts them.
MAIN = dict(
    method="grpo",
    policy="Qwen/Qwen2.5-VL-7B-Instruct",
    dtype="bfloat16",
    data={"cub200": 3000},
    subset_seed=42,
    prompt="general",
    seed=1,
    rule="dynamic",
    anchor_rank=1,
    noise=0.0,
    think=False,
    overlong=0,
    rollouts=10,
    temperature=1.0,
    top_p=1.0,
    max_tokens=2048,
    max_prompt=2048,
    engine="vllm",
    steps=None,
    epochs=15,
    rounds=1,
    prompts_per_generation=256,
    prompts_per_step=128,
    micro_batch=32,
    learning_rate=3e-5,
    weight_decay=0.01,
    max_grad_norm=1.0,
    kl=0.01,
    loss="bnpo",
    scale_rewards="group",
    clip_low=0.2,
    clip_high=0.2,
    dual_clip=3.0,
    drop_flat_groups=False,
    lora_rank=64,
    lora_alpha=32,
)
DR_GRPO = dict(kl=0.0, loss="dr_grpo", scale_rewards="none")
DAPO = dict(kl=0.0, loss="dapo", clip_high=0.28, dual_clip=10.0, overlong=512)
STATIC, FLAT = (dict(rule="reward3"), dict(drop_flat_groups=True, prompts_per_generation=768, prompts_per_step=384))
SIX = ("cub200", "food101", "flowers102", "oxford_pets", "fgvc_aircraft", "stanford_cars")
RELEASED = {
    "speciarl": (165, {}),
    "speciarl_n5": (165, dict(rollouts=5)),
    "speciarl_n15": (165, dict(rollouts=15)),
    "rft": (165, STATIC),
    "scala1": (165, dict(rule="scala1")),
    "scala2": (165, dict(rule="scala2")),
    "scala3": (165, dict(rule="scala3")),
    "mixed": (165, dict(data=dict.fromkeys(SIX, 500), micro_batch=16)),
    "noise5": (60, dict(noise=0.05, data={"cub200": 1024})),
    "noise10": (60, dict(noise=0.10, data={"cub200": 1024})),
    "noise25": (60, dict(noise=0.25, data={"cub200": 1024})),
    "data128": (15, dict(data={"cub200": 128}, prompts_per_generation=128)),
    "data1024": (60, dict(data={"cub200": 1024})),
    "data2048": (120, dict(data={"cub200": 2048})),
    "domain_birds": (75, dict(rollouts=5, prompts_per_generation=512, learning_rate=3e-6)),
    "domain_aircraft": (165, dict(data={"fgvc_aircraft": 3000})),
    "domain_flowers": (165, dict(data={"flowers102": 3000})),
    "domain_food": (165, dict(data={"food101": 3000})),
    "domain_pets": (165, dict(data={"oxford_pets": 2944})),
    "drgrpo": (165, DR_GRPO),
    "drgrpo_rft": (165, DR_GRPO | STATIC),
    "dapo": (165, DAPO),
    "dapo_rft": (165, DAPO | STATIC),
    "dapo_ds": (45, DAPO | FLAT),
    "dapo_rft_ds": (45, DAPO | STATIC | FLAT),
}
OURS = {
    "domain_cars",
    "anchor2",
    "anchor3",
    "anchor2_n5",
    "anchor3_n5",
    "anchor2_n15",
    "anchor3_n15",
    "speciarl_single",
    "sft",
    "self",
}


@pytest.mark.parametrize("name", RELEASED)
def test_the_files_say_what_the_released_configurations_say(name):
    recipe, (generations, changes) = load_recipe(f"paper/{name}"), RELEASED[name]
    said = recipe.model_dump()
    assert {key: said[key] for key in MAIN} == MAIN | changes
    assert list(recipe.data) == list((MAIN | changes)["data"]), (
        "data sets in the released order: the draw depends on it"
    )
    per_generation = recipe.generation // recipe.prompts_per_step
    assert (
        recipe.optimiser_steps == generations * per_generation
        and per_generation == (MAIN | changes)["prompts_per_generation"] // (MAIN | changes)["prompts_per_step"]
    )


def test_every_paper_recipe_is_a_released_one_or_said_to_be_ours():
    assert set(PAPER) == set(RELEASED) | OURS
    for name in OURS - {"speciarl_single"}:
        head = (ASSETS / "recipes" / "paper" / f"{name}.yaml").read_text(encoding="utf-8").split("name:")[0]
        assert "ours" in head, f"{name} does not say that it was not published"
    for name in RELEASED:
        assert (
            "Released configuration: "
            in (ASSETS / "recipes" / "paper" / f"{name}.yaml").read_text(encoding="utf-8").split("name:")[0]
        )


def marks(name: str) -> dict[str, str]:
    "What a recipe's file says behind the value of each key."
    text = (ASSETS / "recipes" / "paper" / f"{name}.yaml").read_text(encoding="utf-8")
    lines = [line.partition("  # ") for line in text.splitlines() if not line.startswith(("#", "name:"))]
    return {line.partition(":")[0]: mark for line, _, mark in lines}


@pytest.mark.parametrize("name", PAPER)
def test_every_line_of_a_paper_recipe_says_whose_it_is(name):
    told = marks(name)
    assert not [key for key, mark in told.items() if not mark.startswith(("release", "ours", "without effect"))]
    assert told["max_pixels"].startswith("ours"), "the release sets none"
    main, own = load_recipe("paper/speciarl").model_dump(), load_recipe(f"paper/{name}").model_dump()
    for key in told:  # what a released configuration says differently is the release's
        if name in RELEASED and own[key] != main[key] and key in RELEASED[name][1] and key != "prompts_per_step":
            assert told[key].startswith("release"), key


def test_fine_tuning_of_a_large_model_is_taught_no_sight_that_the_picture_may_not_give():
    "Plates of the field guide say whether they can be read; of a photograph nobody knows."
    for name in available("recipes"):
        recipe = load_recipe(name)
        if recipe.method == "sft" and name.startswith("paper/"):
            assert "clear" not in recipe.thought and "exact" not in recipe.thought


@pytest.mark.parametrize("size", ["smoke", "laptop", "paper"])
def test_static_and_dynamic_differ_in_the_rule_only(size):
    static, dynamic = (load_recipe(f"{size}/{name}").model_dump() for name in ("rft", "speciarl"))
    assert {key for key in static if static[key] != dynamic[key]} == {"name", "rule"}


def test_recipes_for_photographs_differ_in_what_they_are_about():
    """The static run differs from the dynamic one in the rule only, no text that is taught tells what a plate shows,
    and photographs are left to choose a learning rate on."""
    static, dynamic = (load_recipe(f"photographs/{name}").model_dump() for name in ("rft", "speciarl"))
    assert {key for key in static if static[key] != dynamic[key]} == {"name", "rule"}
    there = sum(sample.split == "train" for sample in named_set("photo-birds").samples(EVERYTHING))
    for name in ("speciarl", "rft", "sft", "self"):
        recipe = load_recipe(f"photographs/{name}")
        assert recipe.policy == "photo-base" and list(recipe.data) == ["photo-birds"] and recipe.judge == "taxonomy"
        assert recipe.images + 300 <= there and all_strict(recipe.data)
        head = (ASSETS / "recipes" / "photographs" / f"{name}.yaml").read_text(encoding="utf-8").split("name:")[0]
        assert "learning rate" in head, "how it was chosen, or where that is said"
        if name == "speciarl":
            assert "one seed" in head and "that are not trained on" in head
    assert "view" not in load_recipe("photographs/sft").thought


@pytest.mark.parametrize("name", available("recipes"))
def test_recipes_are_complete(name):
    """No key that a method uses is left to a default that a later version could change; two files can be compared
    with diff."""
    said, recipe = yaml.safe_load((ASSETS / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")), load_recipe(name)
    used = {
        "method",
        "policy",
        "dtype",
        "data",
        "subset_seed",
        "prompt",
        "seed",
        "prompts_per_step",
        "micro_batch",
        "learning_rate",
        "schedule",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
        "train_vision",
        "lora_rank",
        "export",
    }
    if recipe.samples:
        used |= {*ALGORITHM, "overlong", "judge", "rollouts", "max_tokens", "engine", "prompts_per_generation"}
    assert used <= set(said)


@pytest.mark.parametrize("name", [name for name in available("prompts") if not name.startswith("openworld/")])
def test_prompts_ask_for_the_output_contract(name):
    assert extract_answer(load_prompt(name)) is not None and "None" in load_prompt(name)


def write(tmp_path: Path, **changes) -> Path:
    values = {
        key: value
        for key, value in (load_recipe("smoke/speciarl").model_dump() | changes).items()
        if value != "left out"
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"stepz": 3}, "mine.yaml: unknown key 'stepz'; it may have: "),
        ({"images": 400}, "mine.yaml: unknown key 'images'; it may have: "),
        ({"steps": 0}, "mine.yaml: steps: Input should be greater than or equal to 1"),
        ({"steps": "many"}, "mine.yaml: steps: Input should be a valid integer"),
        ({"rollouts": 1}, "mine.yaml: rollouts: Input should be greater than or equal to 2"),
        ({"data": {}}, "mine.yaml: data: Dictionary should have at least 1 item"),
        ({"data": "left out"}, "mine.yaml: data: Field required"),
        ({"data": {"birds": 0}}, "mine.yaml: the file: data: every data set needs at least 1 image"),
        ({"data": {"birds": "all"}}, "mine.yaml: data.birds: Input should be a valid integer"),
        ({"learning_rate": 0}, "mine.yaml: learning_rate: Input should be greater than 0"),
        ({"noise": 1.0}, "mine.yaml: noise: Input should be less than 1"),
        ({"top_p": 1.5}, "mine.yaml: top_p: Input should be less than or equal to 1"),
        ({"engine": "sglang"}, "mine.yaml: engine: Input should be 'transformers', 'vllm' or 'vllm-server'"),
        ({"dual_clip": 1.0}, "mine.yaml: dual_clip: Input should be greater than 1"),
        (
            {"method": "sft"},
            "mine.yaml: the file: methods grpo and tapo need a rule (reward3, accuracy, scala1, scala2, scala3, "
            "priced, dynamic, dynamic-single), and only they have one",
        ),
        (
            {"rule": None},
            "mine.yaml: the file: methods grpo and tapo need a rule (reward3, accuracy, scala1, scala2, scala3, "
            "priced, dynamic, dynamic-single), and only they have one",
        ),
        (
            {"rule": "best"},
            "mine.yaml: the file: unknown rule 'best'; use one of reward3, accuracy, scala1, scala2, scala3, "
            "priced, dynamic, dynamic-single",
        ),
        ({"anchor_rank": 2, "rule": "scala1"}, "mine.yaml: the file: anchor_rank goes with rule dynamic only"),
        ({"anchor_rank": 11}, "mine.yaml: the file: anchor_rank 11 needs at least as many rollouts"),
        ({"thought": "a bird"}, "mine.yaml: the file: thought goes with method sft only: grpo learns from other texts"),
        ({"epochs": 3}, "mine.yaml: the file: give steps or epochs, one of them"),
        ({"steps": None}, "mine.yaml: the file: give steps or epochs, one of them"),
        (
            {"prompts_per_generation": 20},
            "mine.yaml: the file: prompts_per_generation 20 is not divisible by prompts_per_step 8",
        ),
        (
            {"prompts_per_generation": 4},
            "mine.yaml: the file: prompts_per_generation 4 is not divisible by prompts_per_step 8",
        ),
        ({"overlong": 16}, "mine.yaml: the file: overlong 16 must be less than max_tokens 16"),
        ({"judge": "llm"}, "mine.yaml: the file: judge llm needs a judge_model"),
        ({"judge": "cascade"}, "mine.yaml: the file: judge cascade needs a judge_model"),
        ({"rounds": 2}, "mine.yaml: the file: rounds goes with method self only"),
        ({"export": "adapter"}, "mine.yaml: the file: export adapter needs a lora_rank"),
        (
            {"method": "sft", "rule": None, "engine": "vllm"},
            "mine.yaml: the file: method sft has no other engine than transformers",
        ),
        ({"train_vision": True, "lora_rank": 4}, "mine.yaml: the file: train_vision goes with lora_rank 0 only"),
        ({"min_pixels": 2000, "max_pixels": 1000}, "mine.yaml: the file: min_pixels 2000 is more than max_pixels 1000"),
        ({"siblings": 26}, "mine.yaml: siblings: Input should be less than or equal to 25"),
        (
            {"positives": True, "inter_weight": 0.01},
            "mine.yaml: the file: positives, inter_weight: only method tapo has triplets",
        ),
        (
            {"method": "tapo", "positives": True, "rollouts": 5},
            "mine.yaml: the file: positives needs an even number of rollouts, not 5: half of them see the positive",
        ),
        (
            {"method": "tapo", "inter_weight": 0.01},
            "mine.yaml: the file: inter_weight and negative_entropy_weight need negatives: sibling or visual",
        ),
        (
            {"method": "tapo", "accuracy_band": [0.9, 0.1]},
            "mine.yaml: the file: accuracy_band is [low, high] with 0 <= low < high <= 1",
        ),
        (
            {"export": "adapter", "lora_rank": 4, "method": "self", "rule": None, "rounds": 2},
            "mine.yaml: the file: export adapter goes with one round only, since each round stands on the policy of "
            "the one before; use export merged",
        ),
    ],
)
def test_faults_are_one_line_that_names_the_key(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        load_recipe(write(tmp_path, **changes))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert ": the file: " not in message or str(error.value) == message


@pytest.mark.parametrize(
    "changes, message",
    [
        (["steps"], "--set 'steps': write it as key=value, for example steps=60"),
        (["steps=60", "stepz=3"], "speciarl.yaml: unknown key 'stepz'; it may have: "),
        (["rule=[dynamic"], "--set 'rule=[dynamic': the value is not YAML; put text in quotes"),
        (["steps.more=1"], "--set steps.more: steps has no keys of its own"),
        (["data.birds=few"], "speciarl.yaml: data.birds: Input should be a valid integer"),
        (["data.birds.male=3"], "--set data.birds.male: birds has no keys of its own"),
    ],
)
def test_changes_are_checked_like_the_file(changes, message):
    with pytest.raises(UserError) as error:
        load_recipe("smoke/speciarl", changes)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_changes_are_read_like_the_file_and_leave_it_alone():
    before = load_recipe("smoke/speciarl")
    changed = load_recipe(
        "smoke/speciarl",
        [
            "data.birds=80",
            "data.food=8",
            "learning_rate=3.0e-4",
            "prompts_per_generation=null",
            "drop_flat_groups=true",
            " seed = 7 ",
        ],
    )
    assert changed.data == {"birds": 80, "food": 8} and changed.images == 88
    assert (
        changed.learning_rate,
        changed.prompts_per_generation,
        changed.generation,
        changed.drop_flat_groups,
        changed.seed,
    ) == (3e-4, None, 8, True, 7)
    assert load_recipe("smoke/speciarl") == before


def test_epochs_drop_what_does_not_fill_a_generation():
    recipe = load_recipe(
        "smoke/speciarl", ["steps=null", "epochs=3", "data.birds=50", "prompts_per_generation=16", "prompts_per_step=8"]
    )
    assert recipe.optimiser_steps == 3 * 3 * 2


@pytest.mark.parametrize(
    "text, message",
    [
        ("[1, 2]", "expected keys and values, found list"),
        ("a: [", "not a YAML file"),
        ("", "expected keys and values, found NoneType"),
        ("!!python/object/apply:os.system ['true']", "not a YAML file"),
    ],
)
def test_files_that_are_not_recipes(tmp_path, text, message):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"^odd.yaml: {message}"):
        load_recipe(path)


@pytest.mark.parametrize(
    "name, near",
    [
        ("smoke/specarl", "smoke/speciarl, "),
        ("speciarl", "laptop/speciarl, paper/speciarl, photographs/speciarl, smoke/speciarl;"),
        ("SpeciaRL", ""),
        ("smoke/", ""),
    ],
)
def test_an_unknown_recipe_is_answered_with_those_near_it(name, near):
    with pytest.raises(UserError) as error:
        load_recipe(name)
    line = str(error.value)
    assert line.startswith(f"unknown recipe {name!r}") and f"near it: {near}" in line + ("" if near else "near it: ")
    assert line.endswith(
        f"speciarl recipes lists all {len(available('recipes'))}, and the path of a YAML file will do, too"
    )
    assert len(line) < 300


def test_a_prompt_without_tags_is_refused(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("name: p\ntext: what is this?\n")
    with pytest.raises(UserError, match="^p.yaml: the text must ask for the answer inside <answer> </answer>$"):
        load_prompt(path)
