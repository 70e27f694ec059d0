"Recipes, profiles, prompts: complete files, strictly checked."

import pytest
import yaml

from speciarl.recipes import available, load_profile, load_prompt, load_recipe
from speciarl.scale import UserError, extract_answer


@pytest.mark.parametrize("name", available("recipes"))
def test_every_packaged_recipe_is_valid_and_named_like_its_file(name):
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", available("profiles"))
def test_every_packaged_profile_is_valid(name):
    profile = load_profile(name)
    assert profile.name == name and set(profile.methods) == {"SFT", "RFT", "SpeciaRL"}


def test_the_three_methods_differ_only_in_what_they_are():
    "A comparison is fair only if the static and the dynamic run differ in nothing but the rule."
    for profile in ("smoke", "laptop"):
        static, dynamic = (load_recipe(f"{profile}/{name}").model_dump() for name in ("rft", "speciarl"))
        assert {key for key in static if static[key] != dynamic[key]} == {"name", "rule"}


@pytest.mark.parametrize("name", available("prompts"))
def test_prompts_ask_for_the_output_contract(name):
    assert extract_answer(load_prompt(name)) is not None and "None" in load_prompt(name)


def write(tmp_path, **changes):
    values = load_recipe("smoke/speciarl").model_dump() | changes
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize("changes, message", [
    ({"stepz": 3}, "mine.yaml: unknown key 'stepz'; it may have: name, method,"),
    ({"steps": 0}, "mine.yaml: steps: Input should be greater than or equal to 1"),
    ({"steps": "many"}, "mine.yaml: steps: Input should be a valid integer"),
    ({"rollouts": 1}, "mine.yaml: rollouts: Input should be greater than or equal to 2"),
    ({"method": "sft"}, "mine.yaml: the file: Value error, method grpo needs a rule"),
    ({"rule": None}, "mine.yaml: the file: Value error, method grpo needs a rule"),
    ({"rule": "best"}, "mine.yaml: rule: Input should be 'dynamic' or 'reward3'"),
])
def test_faults_are_one_line_that_names_the_key(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        load_recipe(write(tmp_path, **changes))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize("text, message", [
    ("[1, 2]", "expected keys and values, found list"), ("a: [", "not a YAML file"), ("", "expected keys and values, found NoneType"),
    ("!!python/object/apply:os.system ['true']", "not a YAML file"),
])
def test_files_that_are_not_recipes(tmp_path, text, message):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=f"^odd.yaml: {message}"):
        load_recipe(path)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(UserError, match="^unknown recipe 'smoke/nothing': use one of laptop/rft, .*smoke/speciarl, or the path of a YAML file$"):
        load_recipe("smoke/nothing")
    with pytest.raises(UserError, match="^unknown profile 'big': use one of laptop, paper, smoke, or the path"):
        load_profile("big")


def test_a_prompt_without_tags_is_refused(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("name: p\ntext: what is this?\n")
    with pytest.raises(UserError, match="^p.yaml: the text must ask for the answer inside <answer> </answer>$"):
        load_prompt(path)
