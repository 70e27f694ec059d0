"""What each step computes, against pinned values: the guard of the versions in compendium.artefacts.VERSIONS.

A policy that has been trained is found again by its recipe and by the versions of the steps that made it, not by the
text of the code. So code can be moved, renamed and documented without training anything again; but whoever changes what
a step computes, and forgets to raise its version, would find policies of another algorithm under the new one's name.

Here every family of recipes takes two steps, on the packaged base policy and a few plates, and what they computed is
compared with data/fingerprints.json: the tokens that were sampled, their categories and rewards, what was left out of
the loss, advantages, loss, norm of the gradient, and how far the weights came. Steps without a recipe (answers,
verdicts, questions with options, the base policy) have a fingerprint, too. If one fails, either the change was meant:
raise the version, and pin the new values; or it was not: mend it.

A family is what shares an algorithm: one for each reward rule, loss, mask and method, and for each term of a method
that can be on or off. To add one, write a line in `FAMILIES` (fingerprint.py): a packaged recipe, and the changes that
make it small and let what is new about it be seen in two steps. Pin it, which is never done by itself:
`python tests/fingerprint.py --pin "its name"`. And add a mutation below that it must catch. How floats and tokens are
compared, and what was measured for that, is said in fingerprint.py.
"""

import importlib

import fingerprint
import pytest
import torch
from fingerprint import FAMILIES, complaint, differences, read_pinned

from speciarl.compendium.artefacts import VERSIONS
from speciarl.core.config import available
from speciarl.policy.base import training_versions
from speciarl.training.recipe import load_recipe
from speciarl.training.rules import RULES, dynamic, find_rule

loop = importlib.import_module("speciarl.training.loop")
PINNED = read_pinned()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_computes_what_it_did(name):
    family = FAMILIES[name]
    unlike = differences(PINNED["families"][name], family.compute())
    assert not unlike, complaint(name, family.step, unlike, PINNED["computed with"], training_versions())


# -- the set is whole


def test_every_step_that_has_a_version_has_a_family():
    assert {family.step for family in FAMILIES.values()} == set(VERSIONS)


CHOICES = ["method", "rule", "loss", "scale_rewards", "schedule", "classes", "drop_flat_groups", "train_vision"]
TAPO_CHOICES = ["positives", "negatives"]
AMOUNTS = ["noise", "overlong", "kl", "lora_rank", "shots"]
TAPO_AMOUNTS = ["inter_weight", "entropy_weight", "negative_entropy_weight", "accuracy_band"]


def traits(recipe) -> set[tuple]:
    "What kind of recipe it is: what it chooses, and which terms are on."
    chosen = {(key, getattr(recipe, key)) for key in CHOICES + TAPO_CHOICES}
    terms = {(key, bool(getattr(recipe, key))) for key in AMOUNTS + TAPO_AMOUNTS}
    several = {("anchor", recipe.anchor_rank > 1), ("rounds", recipe.rounds > 1), ("data", len(recipe.data) > 1)}
    return chosen | terms | several


def test_every_kind_of_packaged_recipe_has_a_family():
    known = set().union(*(traits(family.recipe) for family in FAMILIES.values() if family.recipe))
    small = [name for name in available("recipes") if not name.startswith("paper/")]
    unknown = {name: traits(load_recipe(name)) - known for name in small}
    assert not {name: lacking for name, lacking in unknown.items() if lacking}
    assert {rule for key, rule in known if key == "rule"} - {None} == set(RULES)


def test_no_family_computes_what_another_does():
    seen = {}
    for name, found in PINNED["families"].items():
        same = [other for other, theirs in seen.items() if not differences(theirs, found)]
        assert not same, f"{name} could be taken for {same[0]}"
        seen[name] = found


def test_only_families_are_pinned():
    assert list(PINNED["families"]) == list(FAMILIES)


# -- what it says


def test_a_failure_says_what_changed_and_what_to_do():
    pinned = {"step 1": {"rollouts": ["owl: bird is generic, 1"], "loss": [0.5, 0.25], "grad_norm": 2.0}}
    found = {"step 1": {"rollouts": ["owl: bird is generic, 0"], "loss": [0.5, 0.26, 0.1], "grad_norm": 2.0}}
    unlike = differences(pinned, found)
    assert [path for path, *_ in unlike] == ["step 1, rollouts, 1", "step 1, loss, 2", "step 1, loss, 3"]
    said = complaint("static", "grpo", unlike, {"trl": "1.16.0"}, {"trl": "1.17.0"})
    assert said == (
        "static: this step now computes something else (step 1, rollouts, 1: owl: bird is generic, 1 -> owl: bird is "
        "generic, 0; step 1, loss, 2: 0.25 -> 0.26; step 1, loss, 3: None -> 0.1): raise VERSIONS['grpo'] in "
        "speciarl.compendium.artefacts, so that nothing made before is taken for it, and pin what it computes now "
        "(python tests/fingerprint.py --pin 'static'); or mend it. It was pinned with trl 1.16.0, here 1.17.0."
    )
    assert complaint("static", "grpo", unlike, {"trl": "1.16.0"}, {"trl": "1.16.0"}).endswith("or mend it.")


# -- another processor passes


def jolt(trainer) -> None:
    "Move every weight by about one unit in its last place."
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.mul_(1 + 6e-8 * torch.randn(weight.shape, generator=noise))


@pytest.mark.parametrize("name", ["two steps on a generation", "LoRA", "CoT", "TAPO"])
def test_what_another_processor_does_to_the_last_digits_is_allowed(name):
    with torch.backends.mkldnn.flags(enabled=False):
        found = FAMILIES[name].compute(mutate=jolt)
    assert found != PINNED["families"][name] and not differences(PINNED["families"][name], found)


# -- another algorithm does not: each of these changes must be caught, and by what it touches


def replaced(thing, name: str, change) -> None:
    "Put `change(what it was)` in the place of an attribute."
    setattr(thing, name, change(getattr(thing, name)))


def opposite_sign(trainer):
    replaced(trainer, "_compute_loss", lambda loss: lambda model, inputs: -loss(model, inputs))


def mean_of_rollouts(trainer):
    trainer.loss_type = "grpo"


def mean_of_all_tokens(trainer):
    trainer.loss_type = "bnpo"


def wider_clip(trainer):
    trainer.epsilon_high = 0.28


def no_dual_clip(trainer):
    trainer.args.delta = None


def twice_the_divergence(trainer):
    trainer.beta *= 2


def plain_advantages(trainer):
    trainer.scale_rewards = "none"


def no_gradient_clipping(trainer):
    trainer.args.max_grad_norm = 0.0


def next_best_anchor(trainer):
    trainer.reward_funcs[0].rule = find_rule("dynamic", 2)


def worst_anchor(trainer):
    trainer.reward_funcs[0].rule = lambda group: dynamic(group, k=max(1, len(group)))


def nothing_left_out(trainer):
    trainer._kept = lambda size: [[True] * size]


def flat_groups_kept(trainer):
    trainer.drop_flat_groups = False


def no_band(trainer):
    trainer.reward_funcs[0].band = None


def shifted_mask(trainer):
    def shifted(batch: dict) -> dict:
        return {**batch, "completion_mask": batch["completion_mask"].roll(1, dims=1)}

    replaced(trainer, "_generate_and_score_completions", lambda score: lambda inputs: shifted(score(inputs)))


def prompt_in_the_loss(trainer):
    trainer.data_collator.completion_only_loss = False


def other_draws(trainer):
    torch.manual_seed(torch.initial_seed() + 1)


def other_noise(trainer):
    trainer.reward_funcs[0].seed += 1


def images_reversed(trainer):
    trainer.train_dataset = trainer.train_dataset.select(range(len(trainer.train_dataset))[::-1])


def images_unshuffled(trainer):
    trainer.shuffle_dataset = False


def vision_learns(trainer):
    trainer.model.requires_grad_(True)


def known_words_learn(trainer):
    trainer.model.get_input_embeddings().weight._backward_hooks.clear()


def weaker_adapter(trainer):
    for module in trainer.model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling = {name: factor / 2 for name, factor in module.scaling.items()}


def negatives_approached(trainer):
    trainer.weights = trainer.weights._replace(inter=-trainer.weights.inter)


def positives_unused(trainer):
    trainer.positives = False


MUTATIONS = [  # what is changed, the family in which it must be seen, and as what
    (opposite_sign, "dynamic", "loss"),
    (mean_of_rollouts, "dynamic", "loss"),
    (mean_of_all_tokens, "Dr.GRPO", "loss"),
    (wider_clip, "two steps on a generation", "loss"),
    (no_dual_clip, "two steps on a generation", "loss"),
    (twice_the_divergence, "dynamic", "loss"),
    (plain_advantages, "static", "advantages"),
    (no_gradient_clipping, "CoT", "moved"),
    (next_best_anchor, "dynamic", "rollouts"),
    (worst_anchor, "dynamic", "rollouts"),
    (nothing_left_out, "missing verdicts", "learned"),
    (flat_groups_kept, "DAPO, dynamic sampling", "learned"),
    (no_band, "TAPO", "learned"),
    (shifted_mask, "dynamic", "learned"),
    (prompt_in_the_loss, "SFT", "asked"),
    (other_draws, "dynamic", "rollouts"),
    (other_noise, "noise", "rollouts"),
    (images_reversed, "dynamic", "rollouts"),
    (images_reversed, "SFT", "learned"),
    (images_unshuffled, "dynamic", "rollouts"),
    (vision_learns, "static", "moved"),
    (known_words_learn, "CoT", "moved"),
    (weaker_adapter, "LoRA", "moved"),
    (negatives_approached, "TAPO, nearest in the tree", "loss"),
    (positives_unused, "TAPO", "rollouts"),
]


@pytest.mark.parametrize(
    "mutate, name, seen", MUTATIONS, ids=[f"{mutate.__name__} in {name}" for mutate, name, _ in MUTATIONS]
)
def test_another_algorithm_is_caught(mutate, name, seen):
    unlike = differences(PINNED["families"][name], FAMILIES[name].compute(mutate=mutate))
    assert seen in {part for path, *_ in unlike for part in path.split(", ")}


def test_another_choice_of_what_to_learn_is_caught(monkeypatch):
    "Self-training on the first answer that is right, in place of one drawn among those that reach the anchor."

    def first(texts, samples, judge, seed=0):
        return [group[0] for group in texts]

    monkeypatch.setattr(loop, "best_answers", first)
    assert differences(PINNED["families"]["self"], FAMILIES["self"].compute())


# -- pinning


def test_a_close_draw_is_not_pinned(monkeypatch):
    monkeypatch.setattr(fingerprint, "MARGIN", 100.0)
    before = fingerprint.PINNED.read_bytes()
    with pytest.raises(SystemExit, match="answers: a token was drawn by a margin of .*change the seed"):
        fingerprint.pin(["answers"])
    assert fingerprint.PINNED.read_bytes() == before


def test_families_computed_with_other_libraries_are_not_mixed(monkeypatch):
    monkeypatch.setattr(fingerprint, "training_versions", lambda: {"trl": "0"})
    with pytest.raises(SystemExit, match="pin all"):
        fingerprint.pin(["verdicts"])
