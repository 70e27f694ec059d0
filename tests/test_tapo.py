"""TAPO: every term against its formula and against finite differences, the reward, the filter, the triplet in the
trainer; with nothing switched on it is GRPO."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from PIL import Image
from refusal import message

from speciarl.core.config import available
from speciarl.core.files import weights_digest
from speciarl.core.scale import Category, UserError
from speciarl.data.fieldguide import DOMAINS
from speciarl.data.samples import Sample
from speciarl.data.sets import named_set
from speciarl.data.trees import load_trees
from speciarl.fine_r1.tapo import (
    TAPO,
    TapoReward,
    Weights,
    added_loss,
    divergence,
    fine_r1_paid,
    in_band,
    in_form,
    make_tapo_trainer,
    on_positives,
)
from speciarl.judges.tree import TreeJudge
from speciarl.judges.verdict import Verdict
from speciarl.policy.model import load_policy
from speciarl.training.loop import train
from speciarl.training.plan import KNOWN, memory, plan, triplet_plan
from speciarl.training.recipe import batch_sizes, load_recipe
from speciarl.training.reward import SpecificityReward
from speciarl.training.settings import recipe_judge, training_samples, wanted_classes

PUBLISHED = Weights(0.01, 0.03, 0.03)
TINY = [
    "steps=2",
    "prompts_per_generation=2",
    "prompts_per_step=2",
    "rollouts=4",
    "micro_batch=8",
    "accuracy_band=null",
]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def randoms(*shape: int, seed: int = 0, low: float = 6.0) -> torch.Tensor:
    return -torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * low


# -- the terms


@pytest.mark.parametrize(
    "here, there, value, slope",
    [
        (0.5, 0.5, 0.0, 0.0),  # the image makes no difference
        (0.5, 0.05, 0.1 - math.log(0.1) - 1, 0.9),  # likelier on its own image: to be made likelier
        (0.1, 0.5, 5 - math.log(5) - 1, -4.0),  # likelier on the negative: less likely
        (0.5, 0.5 * math.exp(-15), 10.0, 0.0),  # k3 is 14 and more: clamped
        (0.01, 0.99, 10.0, 0.0),
        (1.0, math.exp(-40), 10.0, 0.0),  # beyond the clamp of the log-ratio as well
    ],
)
def test_the_divergence_of_one_token(here, there, value, slope):
    own = torch.tensor(math.log(here), dtype=torch.float64, requires_grad=True)
    found = divergence(torch.tensor(math.log(there), dtype=torch.float64), own)
    found.backward()
    assert found.item() == pytest.approx(value, abs=1e-12) and own.grad.item() == pytest.approx(slope, abs=1e-12)


@pytest.mark.parametrize("weights", [Weights(0.01), Weights(entropy=0.03), PUBLISHED, Weights(2.0, 0.5, 7.0)])
def test_gradients_of_the_terms_are_finite_differences(weights):
    logps, negative, step = randoms(5, 7, seed=1).requires_grad_(), randoms(5, 7, seed=2, low=12.0), 1e-6
    (analytic,) = torch.autograd.grad(added_loss(weights, logps, negative).sum(), logps)
    with torch.no_grad():
        numeric = (added_loss(weights, logps + step, negative) - added_loss(weights, logps - step, negative)) / (
            2 * step
        )
    assert torch.allclose(analytic, numeric, atol=1e-7) and analytic.abs().max() > 0


def test_the_second_entropy_has_no_gradient_and_moves_the_loss():
    logps, negative = randoms(3, 4).requires_grad_(), randoms(3, 4, seed=1).requires_grad_()
    with_it, without = (added_loss(Weights(0.01, 0.03, weight), logps, negative) for weight in (0.03, 0.0))
    assert torch.allclose(with_it - without, -0.03 * negative)
    gradients = [torch.autograd.grad(loss.sum(), [logps, negative], allow_unused=True) for loss in (with_it, without)]
    assert torch.equal(gradients[0][0], gradients[1][0]) and gradients[0][1] is None
    assert not added_loss(Weights(negative_entropy=0.03), logps.detach(), negative).requires_grad


def test_over_all_words_the_divergence_has_the_gradient_of_the_reverse_kl_and_the_entropy_none():
    logits = torch.randn(6, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)
    other, logps = (torch.arange(6, dtype=torch.float64) / 9).log_softmax(0), logits.log_softmax(0)
    assert (divergence(other, logps) < 10).all()
    found, reverse, entropy = (
        torch.autograd.grad(value, logits, retain_graph=True)[0]
        for value in (
            (logps.exp().detach() * divergence(other, logps)).sum(),
            (other.exp() * (other - logps)).sum(),
            (logps.exp().detach() * added_loss(Weights(entropy=1.0), logps)).sum(),
        )
    )
    assert torch.allclose(found, reverse) and entropy.abs().max() < 1e-14


# -- what is paid


@pytest.mark.parametrize(
    "text, kept",
    [
        ("<think> a </think> <answer> b </answer>", True),
        ("\n<think>a\nb</think>\n\n<answer>b</answer> ", True),
        ("<think></think><answer></answer>", True),
        ("<answer> b </answer>", False),
        ("x <think> a </think> <answer> b </answer>", False),
        ("<think> a </think> <answer> b </answer> .", False),
        ("<think> a </think> so <answer> b </answer>", False),
        ("<think> a <answer> c </answer> </think> <answer> b </answer>", False),
        ("<think> a </think> <answer> b", False),
        ("", False),
    ],
)
def test_the_form_is_the_whole_text(text, kept):
    assert in_form(text) is kept


@pytest.fixture(scope="module")
def judge():
    return TreeJudge(load_trees(["birds"]), strict=True)


def asked(label: str, answers: list[str], uid: str = "a") -> dict:
    return dict(
        completions=[
            answer if "<" in answer or not answer else f"<think> hm </think> <answer> {answer} </answer>"
            for answer in answers
        ],
        label=[label] * len(answers),
        uid=[uid] * len(answers),
        dataset=["birds"] * len(answers),
    )


def test_naming_everything_wins_the_released_accuracy_and_nothing_here(judge):
    everything = ", ".join(node.name for node in load_trees(["birds"])["birds"].nodes if node.is_class)
    assert "hooded warbler" in everything, "a right answer by the release's rule"
    paid = TapoReward(judge, "accuracy", 4)(
        **asked("hooded warbler", ["hooded warbler", everything, "hooded warbler or pine warbler", "setophaga citrina"])
    )
    assert paid == pytest.approx([1.0, 0.1, 0.1, 1.0])


def test_accuracy_and_form_are_paid_each_for_itself(judge):
    answers = ["hooded warbler", "<answer> hooded warbler </answer>", "warbler", "<think> hm </think> warbler", ""]
    assert TapoReward(judge, "accuracy", 5)(**asked("hooded warbler", answers)) == pytest.approx(
        [1.0, 0.9, 0.1, 0.0, 0.0]
    )
    assert fine_r1_paid(None, True) is None


def test_other_rules_are_paid_as_ever(judge):
    given = asked("hooded warbler", ["warbler", "bird", "song sparrow", "no tag </answer>"])
    assert (
        TapoReward(judge, "dynamic", 4)(**given)
        == SpecificityReward(judge, "dynamic", 4)(**given)
        == [1.0, 0.0, 0.0, -1.0]
    )


def test_a_missing_verdict_stays_missing():
    def half(pairs, datasets=None):
        return [Verdict(None if answer == "?" else Category.SPECIFIC, "test") for _, answer in pairs]

    pay = TapoReward(half, "accuracy", 4, accuracy_band=(0.01, 0.99))
    assert pay(**asked("x", ["a", "?", "<answer> a </answer>", "<answer> </answer>"])) == [
        1.0,
        None,
        0.9,
        0.0,
    ] and pay.last_mask == [True, False, True, True]


# -- the filter


@pytest.mark.parametrize(
    "correct, inside",
    [
        ([1, 0], True),
        ([1, 1], False),
        ([0, 0], False),
        ([0, -1, -1], False),
        ([1, -1], True),
        ([1, None, 1], False),
        ([None, None], False),
        ([1] * 99 + [0], False),
        ([1] * 98 + [0] * 2, True),
    ],
)
def test_the_band_is_open_at_both_ends(correct, inside):
    assert in_band(correct, (0.01, 0.99)) is inside and in_band(correct, None)


def test_groups_outside_the_band_are_left_out_and_still_logged(judge):
    told, pay = {}, TapoReward(judge, "accuracy", 2, accuracy_band=(0.01, 0.99))
    parts = [
        asked("hooded warbler", answers, uid)
        for uid, answers in (
            ("a", ["hooded warbler"] * 2),
            ("b", ["hooded warbler", "bird"]),
            ("c", ["bird", "<answer> bird </answer>"]),
        )
    ]
    paid = pay(**{key: sum((part[key] for part in parts), []) for key in parts[0]}, log_metric=told.__setitem__)
    assert paid == pytest.approx([1.0, 1.0, 1.0, 0.1, 0.1, 0.0]) and pay.last_mask == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    assert told["groups_outside_band"] == pytest.approx(2 / 3) and told["share_in_form"] == pytest.approx(5 / 6)


def test_a_group_across_two_processes_is_one_group(judge):
    whole = asked("hooded warbler", ["hooded warbler"] * 3 + ["bird"] * 5)
    whole["uid"] = ["a"] * 4 + ["b"] * 4
    box, gate = [None] * 2, Barrier(2)

    def work(rank):
        def gather(mine):
            box[rank] = mine
            gate.wait(timeout=30)
            parts = list(box)
            gate.wait(timeout=30)
            return parts, rank

        mine = (slice(0, 3), slice(3, 8))[rank]
        pay = TapoReward(judge, "accuracy", 4, accuracy_band=(0.01, 0.99), gather=gather)
        return pay(**{key: value[mine] for key, value in whole.items()}), pay.last_mask

    with ThreadPoolExecutor(2) as pool:
        shared = list(pool.map(work, (0, 1)))
    assert shared[0] == ([1.0] * 3, [True] * 3) and shared[1] == ([0.1] * 5, [True] + [False] * 4)


# -- the triplet in the trainer


def test_the_second_half_of_each_group_sees_the_positive():
    rows = [dict(picture=name, positive=name.upper(), uid=name) for name in "ab" for _ in range(6)]
    assert [row["picture"] for row in on_positives(rows, 6)] == ["a"] * 3 + [("A", "a")] * 3 + ["b"] * 3 + [
        ("B", "b")
    ] * 3
    assert "not whole groups of 6" in message(on_positives, rows[:8], 6)


SHADES = {"hooded warbler": "gold", "pine warbler": "darkgreen"}
SIZES = [
    (56, 56),
    (28, 84),
    (112, 28),
    (84, 28),
]  # the small processor makes 4 or 3 image tokens of them, in other shapes


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    "A trainer on two classes of four pictures of different sizes."
    samples = [
        Sample(f"{label} {i}", Image.new("RGB", size, shade), label, "birds", "train")
        for i, size in enumerate(SIZES)
        for label, shade in SHADES.items()
    ]
    recipe = load_recipe(
        "smoke/tapo",
        [*TINY, "data.birds=8", "classes=all", "shots=null", "prompts_per_generation=4", "prompts_per_step=2"],
    )
    return make_tapo_trainer(
        recipe,
        load_policy(recipe.policy, dtype=torch.float32, device="cpu"),
        samples,
        tmp_path_factory.mktemp("tapo"),
        recipe_judge(recipe),
    )


@pytest.fixture(scope="module")
def generated(trainer):
    torch.manual_seed(0)
    rows = [trainer.train_dataset[i] for i in (0, 1, 2, 5) for _ in range(4)]
    return rows, trainer._generate_and_score_completions(rows)


def picture(trainer, name: str, anchor: str) -> dict:
    return trainer.processing_class.image_processor(images=[[trainer.pictures((name, anchor))]], return_tensors="pt")


def scored(trainer, batch: dict, i: int, fields: dict) -> torch.Tensor:
    "Log-probabilities of one answer on a picture, by an unpadded forward pass of the bare model."
    prompt, answer = (batch[f"{part}_ids"][i][batch[f"{part}_mask"][i].bool()] for part in ("prompt", "completion"))
    ids = torch.cat([prompt, answer]).unsqueeze(0)
    with torch.no_grad():
        logits = trainer.model(input_ids=ids, **fields, mm_token_type_ids=(ids == 6).long()).logits[0]
    return logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, answer.unsqueeze(1)).squeeze(1)


def test_every_answer_is_scored_with_the_image_that_it_was_sampled_on_and_on_the_negative(trainer, generated):
    rows, batch = generated
    patches = batch["image_grid_thw"].prod(-1).tolist()
    for i, (row, own) in enumerate(zip(rows, batch["pixel_values"].split(patches))):
        seen = picture(trainer, row["positive"] if i % 4 > 1 else row["picture"], row["picture"])
        assert torch.equal(own, seen["pixel_values"]) and torch.equal(
            batch["image_grid_thw"][i : i + 1], seen["image_grid_thw"]
        )
        on_negative = scored(trainer, batch, i, picture(trainer, row["negative"], row["picture"]))
        assert torch.allclose(batch["negative_logps"][i, : len(on_negative)], on_negative, atol=1e-4)
    assert len(set(patches)) > 1 and not batch["negative_logps"].requires_grad


def test_the_terms_are_means_over_the_tokens_of_a_step_however_it_is_cut(trainer, generated):
    """The added gradient of one micro-batch of a step is that of its parts together; answers differ in length, and
    one is left out."""
    batch = dict(generated[1])
    batch["completion_mask"] = batch["completion_mask"].clone()
    batch["completion_mask"][5] = 0
    batch["num_items_in_batch"] = batch["completion_mask"].sum()
    weight = trainer.model.model.language_model.layers[0].mlp.up_proj.weight
    kept = trainer.args.steps_per_generation

    def gradient(micro, weights=PUBLISHED):
        trainer.weights, trainer.args.steps_per_generation, trainer.current_gradient_accumulation_steps = (
            weights,
            16 // micro,
            16 // micro,
        )
        trainer.model.train().zero_grad()
        patches = [0, *batch["image_grid_thw"].prod(-1).cumsum(0).tolist()]
        for start in range(0, 16, micro):
            part = {
                name: value[start : start + micro] if name not in ("pixel_values", "num_items_in_batch") else value
                for name, value in batch.items()
            }
            part["pixel_values"] = batch["pixel_values"][patches[start] : patches[start + micro]]
            trainer._compute_loss(trainer.model, part).backward()
        return weight.grad.clone()

    whole, parts, bare = gradient(16), gradient(4), gradient(16, Weights())
    trainer.weights, trainer.args.steps_per_generation = PUBLISHED, kept
    assert torch.allclose(whole, parts, atol=1e-6) and not torch.allclose(whole, bare, atol=1e-6)


def test_the_gradient_of_the_whole_loss_is_a_finite_difference(trainer, generated):
    """Through the model: clip part, divergence and entropy together, along a random direction. (TRL's fused head
    counts in single precision, which limits the agreement.)"""
    batch = {
        name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in generated[1].items()
    }
    model, trainer.weights, trainer.current_gradient_accumulation_steps = (
        trainer.model.double().eval(),
        Weights(0.1, 0.3, 0.3),
        1,
    )
    ids, mask = (torch.cat([batch[f"prompt_{kind}"], batch[f"completion_{kind}"]], 1) for kind in ("ids", "mask"))
    fields = {name: batch[name] for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")}
    with torch.no_grad():  # the policy that sampled was a little surer, and was paid something
        batch["old_per_token_logps"] = (
            trainer._get_per_token_logps_and_entropies(model, ids, mask, batch["completion_ids"].shape[1], **fields)[0]
            + 0.02
        )
    batch["advantages"] = torch.linspace(-1, 1, 16, dtype=torch.float64)
    weights = [
        parameter for name, parameter in model.named_parameters() if "layers.1.mlp" in name or "visual.merger" in name
    ]
    direction = [
        torch.randn(weight.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        for i, weight in enumerate(weights)
    ]
    found = sum(
        (gradient * along).sum()
        for gradient, along in zip(torch.autograd.grad(trainer._compute_loss(model, batch), weights), direction)
    )
    step, values = 3e-4, []
    with torch.no_grad():
        for sign in (1, -2):
            for weight, along in zip(weights, direction):
                weight += sign * step * along
            values.append(trainer._compute_loss(model, batch))
        for weight, along in zip(weights, direction):
            weight += step * along
    trainer.weights, trainer.model = PUBLISHED, model.float()
    assert found.abs() > 0.01 and torch.isclose(found, (values[0] - values[1]) / (2 * step), rtol=5e-3)


def test_what_was_found_on_the_negatives_goes_with_its_answer_through_shuffling(trainer, monkeypatch):
    "TRL shuffles a generation and cuts it into micro-batches."
    monkeypatch.setattr(trainer, "_on_negatives", lambda rows, batch: batch["completion_ids"].float())
    trainer._step, trainer._buffered_inputs = 0, None
    trainer.model.train()
    found = trainer._prepare_inputs([trainer.train_dataset[i] for i in (0, 1, 2, 5) for _ in range(4)])
    parts = trainer._buffered_inputs
    assert (
        len(parts) == 2
        and found is parts[0]
        and all(torch.equal(part["negative_logps"], part["completion_ids"].float()) for part in parts)
    )


def test_a_server_draws_half_a_group_at_a_time(trainer, monkeypatch):
    "It takes one prompt and one picture of each group, and draws the rest alike."
    from speciarl.training.trainer import SpecificityTrainer

    asked_for = []
    monkeypatch.setattr(
        SpecificityTrainer,
        "_generate_single_turn",
        lambda self, ids, images, fields, n, tools=False: asked_for.append(n),
    )
    trainer._generate_single_turn([], None, {}, 4)
    monkeypatch.setattr(trainer, "positives", False)
    trainer._generate_single_turn([], None, {}, 4)
    assert asked_for == [2, 4]


# -- runs


def test_with_nothing_switched_on_it_is_grpo(tmp_path):
    """The same weights, bit for bit, after two updates on one generation; the log has the two figures of the TAPO
    reward besides."""
    small = [*TINY[:-1], "data.birds=8", "prompts_per_generation=4", "loss=dapo"]
    plain, off = (
        train(load_recipe("smoke/speciarl", small), tmp_path / "grpo"),
        train(load_recipe("smoke/speciarl", [*small, "method=tapo"]), tmp_path / "tapo", way=TAPO),
    )
    assert (
        weights_digest(plain / "policy") == weights_digest(off / "policy")
        and (plain / "rollouts.jsonl").read_text() == (off / "rollouts.jsonl").read_text()
    )
    for one, other in zip(
        *([json.loads(line) for line in (path / "log.jsonl").read_text().splitlines()] for path in (plain, off))
    ):
        assert {key: other[key] for key in one} == one and set(other) - set(one) <= {
            "groups_outside_band",
            "share_in_form",
        }


def test_a_step_whose_groups_are_all_left_out_learns_nothing(tmp_path):
    run = train(
        load_recipe("smoke/tapo", [*TINY[:-1], "steps=1", "accuracy_band=[0.0, 0.001]", "weight_decay=0.0"]),
        tmp_path / "run",
        way=TAPO,
    )
    base = load_policy("fieldguide-base", device="cpu").model.state_dict()
    assert all(
        torch.equal(weight, base[name])
        for name, weight in load_policy(run / "policy", device="cpu").model.state_dict().items()
    )
    assert json.loads((run / "log.jsonl").read_text())["groups_outside_band"] == 1.0


def test_a_run_says_what_it_made_of_the_triplets_and_trains_the_vision_tower(tmp_path):
    run = train(load_recipe("smoke/tapo", TINY), tmp_path / "run", way=TAPO)
    card, first = (
        json.loads((run / "card.json").read_text()),
        json.loads((run / "log.jsonl").read_text().splitlines()[0]),
    )
    assert card["recipe"]["method"] == "tapo" and card["sha256"] == weights_digest(run / "policy")
    assert first["anchor_divergence"] > 0 and 0 < first["share_in_form"] <= 1
    triplets = json.loads((run / "triplets.json").read_text())
    assert len(triplets) == 120 and all(
        positive in triplets and negative in triplets for positive, negative in triplets.values()
    )
    base, tuned = (load_policy(name, device="cpu").model.state_dict() for name in ("fieldguide-base", run / "policy"))
    moved = {name.removeprefix("model.").split(".")[0] for name in base if not torch.equal(base[name], tuned[name])}
    assert "visual" in moved and "language_model" in moved


@pytest.mark.parametrize(
    "changes, line",
    [
        (
            ["shots=1", "data.birds=30"],
            "30 of 30 classes have one image only, and so no positive: 'glaucous gull'; take more images of each "
            "class (shots), or set positives=false",
        ),
        (["loss=bnpo"], "the terms of TAPO are means over the tokens of a step, and loss bnpo is not: use loss: dapo"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, changes, line):
    recipe = load_recipe("smoke/tapo", [*TINY, *changes])
    assert message(train, recipe, tmp_path / "run", way=TAPO) == line


# -- recipes


# What Fine-R1 published; everything else in the two files is marked as ours.
FINE_R1 = dict(
    method="tapo",
    rule="accuracy",
    rollouts=10,
    positives=True,
    inter_weight=0.01,
    entropy_weight=0.03,
    negative_entropy_weight=0.03,
    accuracy_band=(0.01, 0.99),
    classes="seen",
    shots=4,
    temperature=1.0,
    top_p=0.99,
    max_tokens=2048,
    max_prompt=4096,
    min_pixels=200704,
    max_pixels=1003520,
    learning_rate=1e-6,
    schedule="constant",
    warmup_steps=0,
    weight_decay=0.01,
    max_grad_norm=1.0,
    kl=0.0,
    loss="dapo",
    scale_rewards="group",
    clip_low=0.2,
    clip_high=0.28,
    dual_clip=3.0,
    lora_rank=0,
    train_vision=True,
    save_every=5,
    overlong=0,
)
SIZED = {
    "3b": (10, 384, 128, 120),
    "7b": (5, 192, 64, 135),
}  # epochs, prompts at once, prompts per update, updates in all
SEEN = {
    "fgvc_aircraft": 60,
    "cub200": 120,
    "stanford_cars": 117,
    "stanford_dogs": 72,
    "flowers102": 61,
    "oxford_pets": 22,
}


@pytest.mark.parametrize("size", SIZED)
def test_the_published_constants(size):
    recipe = load_recipe(f"paper/fine_r1_{size}")
    said = recipe.model_dump()
    assert {
        key: said[key] for key in FINE_R1
    } == FINE_R1 and recipe.policy == f"Qwen/Qwen2.5-VL-{size.upper()}-Instruct"
    assert (recipe.epochs, recipe.prompts_per_generation, recipe.prompts_per_step, recipe.optimiser_steps) == SIZED[
        size
    ] and recipe.generation == 3 * recipe.prompts_per_step
    assert (
        recipe.data
        == {name: 4 * count for name, count in SEEN.items()}
        == {name: 4 * len(wanted_classes(recipe, named_set(name))) for name in SEEN}
    )


@pytest.mark.parametrize("size", SIZED)
def test_every_constant_has_its_source(size):
    from speciarl.core.config import ASSETS

    head, *lines = (ASSETS / "recipes" / "paper" / f"fine_r1_{size}.yaml").read_text(encoding="utf-8").split("\nname:")
    assert "Released configuration: " in head
    marked = dict(line.split(": ", 1) for line in lines[0].splitlines()[1:])
    assert all("  # release" in marked[key] for key in FINE_R1 if key not in ("method", "overlong", "policy")) and all(
        "# " in marked[key] for key in ("policy", "data", "epochs", "prompts_per_generation", "prompts_per_step")
    )


@pytest.mark.parametrize("size", ["smoke", "laptop"])
def test_the_small_twins_differ_from_it_in_size_only_and_from_each_other_in_one_thing(size):
    main = load_recipe(f"{size}/tapo").model_dump()
    sizes = {"max_tokens", "max_prompt", "min_pixels", "max_pixels", "learning_rate", "save_every"}
    assert all(main[key] == value for key, value in FINE_R1.items() if key not in sizes)
    twins = {name: load_recipe(name).model_dump() for name in available("recipes") if name.startswith(f"{size}/tapo_")}
    negative = {"negatives", "inter_weight", "negative_entropy_weight"}
    assert {
        name.removeprefix(f"{size}/tapo_"): {key for key in twin if twin[key] != main[key]} - {"name"}
        for name, twin in twins.items()
    } == {
        "no_positives": {"positives"},
        "no_inter": negative,
        "no_entropy": {"entropy_weight", "negative_entropy_weight"},
        "no_band": {"accuracy_band"},
        "sibling": {"negatives"},
        "dynamic": {"rule"},
        "off": negative | {"positives", "entropy_weight"},
    }
    assert set(main["data"]) <= set(DOMAINS) and len(training_samples(load_recipe(f"{size}/tapo"))) == 120


def test_the_plan_of_the_published_run():
    recipe = load_recipe("paper/fine_r1_7b")
    for world in (1, 2, 4, 8):
        batch = batch_sizes(recipe, world)
        assert (
            batch.world * batch.micro * batch.accumulation == 640
            and batch.steps_per_generation == 3 * batch.accumulation
        )
    text = plan(recipe, 4)
    assert (
        "135 steps of 64 prompts; 192 prompts x 10 rollouts at once" in text
        and "triplets: 5 of 10 rollouts on the positive; each answer scored on a negative (visual)" in text
    )
    assert any(line.startswith("split by FSDP2 over 4 processes") for line in text) and not any(
        "FSDP2" in line for line in plan(recipe, 1)
    )
    parts, size = memory(recipe, KNOWN[recipe.policy], 4), KNOWN[recipe.policy]
    assert parts["training state"] == pytest.approx(16 * size.parameters / 1e9) and "reference" not in parts
    fewer = memory(recipe.model_copy(update={"negatives": "none"}), size, 4)
    assert 0 < parts["pictures"] - fewer["pictures"] < 0.05 * fewer["pictures"], (
        "negatives are held for one micro-batch only"
    )
    assert triplet_plan(load_recipe("smoke/tapo_off")) == [] and triplet_plan(
        load_recipe("smoke/tapo_no_positives")
    ) == ["triplets: all rollouts on the anchor; each answer scored on a negative (visual)"]


def test_contradictions_are_refused():
    for changes, said in (
        (["positives=true", "rollouts=5"], "positives needs an even number of rollouts, not 5"),
        (["negatives=none"], "need negatives"),
        (["accuracy_band=[0.5, 0.5]"], "accuracy_band is [low, high]"),
    ):
        with pytest.raises(UserError) as error:
            load_recipe("smoke/tapo", changes)
        assert said in str(error.value)
