"""The mended trainer: each fault is shown with TRL's own trainer, then mended; loss and gradient are the published
formulas."""

import logging
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from PIL import Image
from trl import GRPOConfig, GRPOTrainer

from speciarl.core.scale import UserError
from speciarl.policy.model import load_policy
from speciarl.policy.prompts import load_prompt
from speciarl.training.recipe import load_recipe
from speciarl.training.settings import grpo_config
from speciarl.training.trainer import (
    HOOKS,
    SpecificityTrainer,
    banned_tokens,
    check_trl,
    leave_out,
    merged_weights,
    one_pad,
    spare_columns,
)

PAD = 6  # <|image_pad|> of the small policy


def paid(completions, **columns):
    return [float(i % 2) for i in range(len(completions))]


def settings(folder, **changes):
    return GRPOConfig(
        **{
            **dict(
                output_dir=str(folder),
                per_device_train_batch_size=4,
                num_generations=2,
                max_steps=1,
                max_completion_length=4,
                use_cpu=True,
                bf16=False,
                report_to="none",
                save_strategy="no",
                log_multimodal=False,
                gradient_checkpointing=False,
                dataloader_pin_memory=False,
                temperature=1.0,
                beta=0.0,
            ),
            **changes,
        }
    )


def rows(images=2, **columns):
    picture = {"image": Image.new("RGB", (56, 56), "navy")}
    return Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": load_prompt("general")}], "uid": str(i), **(columns or picture)}
            for i in range(images)
        ]
    )


def build(kind, folder, reward=paid, data=None, **others):
    policy = load_policy("fieldguide-base", dtype=torch.float32)
    changes = others.pop("changes", {})
    return kind(
        policy.model,
        reward,
        settings(folder, **changes),
        train_dataset=data or rows(),
        processing_class=policy.processor,
        **others,
    )


# -- what TRL says


@pytest.mark.parametrize("kind, warned", [(GRPOTrainer, True), (SpecificityTrainer, False)])
def test_a_completion_without_a_verdict_is_no_news(tmp_path, kind, warned, caplog):
    def silent(completions, **columns):
        return [None, *paid(completions[1:])]

    trainer = build(kind, tmp_path, silent)
    with caplog.at_level(logging.WARNING, "trl.trainer.grpo_trainer"):
        trainer._generate_and_score_completions([trainer.train_dataset[0]] * 2)
    said = [message for message in caplog.messages if "All reward functions returned None" in message]
    assert bool(said) == warned
    assert logging.getLogger("trl.trainer.grpo_trainer").filters == [], "nothing stays behind"


# -- one placeholder per picture


class Engine:
    "In vLLM's place: records the prompts it is handed."

    def sync_weights(self):
        pass

    def generate(self, prompts, images, num_generations, profiler):
        self.prompts = prompts
        return prompts, [[3]] * len(prompts), [[[0.0]]] * len(prompts), None


@pytest.mark.parametrize("kind, pads", [(GRPOTrainer, 4), (SpecificityTrainer, 1)])
def test_vllm_gets_one_placeholder_per_picture(tmp_path, kind, pads):
    "TRL hands over the expanded prompt, which vLLM expands again (TRL issue 6294)."
    trainer = build(kind, tmp_path)
    trainer.use_vllm, trainer.vllm_mode, trainer.vllm_generation, trainer._last_loaded_step = (
        True,
        "colocate",
        Engine(),
        -1,
    )
    trainer._generate_single_turn([[1, 2, PAD, PAD, PAD, PAD, 3]], [[Image.new("RGB", (56, 56))]], {}, 1)
    assert trainer.vllm_generation.prompts[0].count(PAD) == pads


def test_vllm_server_gets_the_prompt_as_it_is(tmp_path):
    trainer = build(SpecificityTrainer, tmp_path)
    trainer.use_vllm, trainer.vllm_mode, trainer.vllm_generation, trainer._last_loaded_step = (
        True,
        "server",
        Engine(),
        -1,
    )
    trainer._generate_single_turn([[PAD, PAD]], [[Image.new("RGB", (56, 56))]], {}, 1)
    assert trainer.vllm_generation.prompts == [[PAD, PAD]]


def test_two_pictures_keep_two_placeholders():
    assert one_pad([PAD, PAD, 1, PAD, PAD, PAD], PAD) == [PAD, 1, PAD]


# -- placeholders are never sampled


@pytest.mark.parametrize("kind, banned", [(GRPOTrainer, {6}), (SpecificityTrainer, {6, 7})])
def test_the_video_placeholder_is_banned_too(tmp_path, kind, banned):
    assert set(build(kind, tmp_path).generation_config.suppress_tokens) == banned


def test_vllm_is_told_in_its_own_words_and_the_users_settings_stay():
    config = SimpleNamespace(image_token_id=6, video_token_id=7)
    assert banned_tokens(config, vllm=True) == {"logit_bias": {6: -100.0, 7: -100.0}}


# -- weights for vLLM


def adapted():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8, bias=False)).to(
        torch.bfloat16
    )
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=["0", "2"], init_lora_weights=False))


def test_merging_in_place_changes_the_frozen_base_and_summing_beside_it_does_not():
    "TRL issue 6688."
    stock, ours = adapted(), adapted()
    before = {name: p.detach().clone() for name, p in ours.named_parameters()}
    for _ in range(20):
        stock.merge_adapter()
        stock.unmerge_adapter()
        list(merged_weights(ours))
    assert any(not torch.equal(p, before[name]) for name, p in stock.named_parameters())
    assert all(torch.equal(p, before[name]) for name, p in ours.named_parameters())


def test_what_is_sent_is_the_merged_model_under_the_base_names():
    model = adapted()
    sent = dict(merged_weights(model))
    merged = model.merge_and_unload()
    assert {name: value.shape for name, value in sent.items()} == {
        name: value.shape for name, value in merged.named_parameters()
    }
    assert all(torch.equal(sent[name], value) for name, value in merged.named_parameters())


# -- pictures


@pytest.mark.parametrize("micro_steps", [1, 4])
def test_pictures_are_opened_once_per_generation_and_sample(tmp_path, micro_steps):
    opened = []

    def opener(name):
        opened.append(name)
        return Image.new("RGB", (56, 56), "olive")

    trainer = build(
        SpecificityTrainer,
        tmp_path,
        data=Dataset.from_list([{**row, "picture": f"p{i}"} for i, row in enumerate(rows(2, label="x"))]),
        pictures=opener,
        changes=dict(
            per_device_train_batch_size=4 // micro_steps,
            steps_per_generation=micro_steps,
            gradient_accumulation_steps=micro_steps,
            max_steps=3,
        ),
    )
    trainer.train()
    assert sorted(opened) == ["p0", "p1"], "two pictures, three generations, two rollouts each"


# -- padding


@pytest.mark.parametrize("chunk", [None, 2])
def test_trimmed_log_probabilities_are_those_of_the_padded_batch(tmp_path, chunk):
    widths, ours = [], build(SpecificityTrainer, tmp_path)
    inputs = ours._generate_and_score_completions([ours.train_dataset[i] for i in (0, 0, 1, 1)])
    pad = lambda x, left, right, value: torch.nn.functional.pad(x, (left, right), value=value)
    ids = pad(torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1), 5, 9, 0)
    mask = pad(torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1), 5, 9, 0)
    mask[:2, -10:] = 0  # the first two answers are shorter than the others
    keep = inputs["completion_ids"].shape[1] + 9
    fields = {key: inputs[key] for key in ("pixel_values", "image_grid_thw", "num_images")} | {
        "mm_token_type_ids": (ids == PAD).long()
    }
    model = ours.model.eval()
    model.register_forward_pre_hook(
        lambda module, args, given: widths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    with torch.no_grad():
        mine, entropies, _ = ours._get_per_token_logps_and_entropies(
            model, ids, mask, keep, chunk, compute_entropy=True, **fields
        )
        cut = list(widths)
        stock, stock_entropies, _ = GRPOTrainer._get_per_token_logps_and_entropies(
            ours, model, ids, mask, keep, chunk, compute_entropy=True, **fields
        )
    real = mask[:, -keep:].bool()
    assert (
        mine.shape == stock.shape
        and torch.allclose(mine[real], stock[real], atol=1e-5)
        and torch.allclose(entropies[real], stock_entropies[real], atol=1e-5)
    )
    assert max(cut) <= ids.shape[1] - 14 and (chunk is None or min(cut) < max(cut)), (
        "each chunk is as wide as its own longest row"
    )


def test_nothing_is_cut_from_answers_without_a_token():
    assert spare_columns(torch.tensor([[1, 1, 0, 0, 0]]), keep=3) == (0, 2), "one answer column stays"


# -- what is out of the loss


class Judge:
    "A reward function with one missing verdict and one group that was paid alike."

    __name__ = "judge"
    last_mask = [True, False, True, True]
    last_flat = [False, False, True, True]

    def __call__(self, completions, **columns):
        return [1.0, None, 0.0, 0.0]


@pytest.mark.parametrize("drop, kept", [(False, [1, 0, 1, 1]), (True, [1, 0, 0, 0])])
def test_what_was_not_judged_is_out_of_the_loss(tmp_path, drop, kept):
    stock = build(GRPOTrainer, tmp_path, Judge())
    batch = stock._generate_and_score_completions([stock.train_dataset[i] for i in (0, 0, 1, 1)])
    assert batch["advantages"][1] == 0 and batch["completion_mask"][1].any(), "TRL zeroes the advantage only"
    ours = build(SpecificityTrainer, tmp_path, Judge(), drop_flat_groups=drop)
    batch = ours._generate_and_score_completions([ours.train_dataset[i] for i in (0, 0, 1, 1)])
    assert batch["completion_mask"].any(1).int().tolist() == kept
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()


def test_a_whole_step_without_verdicts_changes_nothing(tmp_path):
    "All groups masked: the loss is 0, not NaN, and the weights stay."
    reward = Judge()
    reward.last_mask = [False] * 4
    trainer = build(SpecificityTrainer, tmp_path, reward, changes=dict(beta=0.01, weight_decay=0.0, loss_type="bnpo"))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())


def test_leaving_out_sums_over_processes():
    batch = {"completion_mask": torch.ones(2, 3, dtype=torch.long)}
    assert leave_out(batch, torch.tensor([True, False]), lambda count: count * 10)["num_items_in_batch"] == 30


# -- the right TRL


def test_a_trainer_with_other_hooks_is_refused():
    class Other(GRPOTrainer):
        def _generate_single_turn(self, prompts):
            pass

    check_trl()
    with pytest.raises(
        UserError,
        match=r"^this TRL's GRPOTrainer._generate_single_turn is not the one speciarl mends: pip install "
        r"'trl==1.16.\*'$",
    ):
        check_trl(Other)
    assert all(hasattr(GRPOTrainer, name) for name in HOOKS)


# -- the loss


def loss_of(config: GRPOConfig, logps, old, ref, advantages, mask):
    "TRL's loss under `config` for given log-probabilities, through the real method."
    trainer = SpecificityTrainer.__new__(SpecificityTrainer)
    trainer.__dict__.update(
        args=config,
        beta=config.beta,
        epsilon_low=config.epsilon,
        epsilon_high=config.epsilon_high,
        loss_type=config.loss_type,
        max_completion_length=config.max_completion_length,
        top_entropy_quantile=1.0,
        aux_loss_enabled=False,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        use_vllm=False,
        vllm_importance_sampling_correction=False,
        _entropy_bonus_enabled=False,
        current_gradient_accumulation_steps=1,
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
    )
    from collections import defaultdict

    trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    trainer._get_per_token_logps_and_entropies = lambda *args, **fields: (logps, torch.zeros_like(logps), None)
    empty = torch.zeros(len(logps), 1, dtype=torch.long)
    return trainer._compute_loss(
        None,
        {
            "prompt_ids": empty,
            "prompt_mask": empty,
            "completion_ids": mask.long(),
            "completion_mask": mask,
            "advantages": advantages,
            "old_per_token_logps": old,
            "ref_per_token_logps": ref,
            "num_items_in_batch": mask.sum(),
        },
    )


def published(logps, old, ref, advantages, mask, low, high, dual, kl, norm):
    "verl's clipped objective with dual clip and k3 in the loss (releases 3.1), summed and divided by `norm`."
    ratio = (logps - old).exp()
    a = advantages.unsqueeze(1)
    clipped = torch.maximum(-a * ratio, -a * ratio.clamp(1 - low, 1 + high))
    policy = torch.where(a < 0, torch.minimum(clipped, -a * dual), clipped)
    difference = ref - logps
    return ((policy + kl * (difference.exp() - difference - 1)) * mask).sum() / norm


FORMULAS = {
    "paper/speciarl": dict(low=0.2, high=0.2, dual=3.0, kl=0.01, norm=lambda mask, config: mask.sum()),
    "paper/drgrpo": dict(
        low=0.2, high=0.2, dual=3.0, kl=0.0, norm=lambda mask, config: len(mask) * config.max_completion_length
    ),
    "paper/dapo": dict(low=0.2, high=0.28, dual=10.0, kl=0.0, norm=lambda mask, config: mask.sum()),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("seed", range(3))
def test_loss_and_gradient_are_the_published_formula(tmp_path, name, seed):
    torch.manual_seed(seed)
    config = grpo_config(load_recipe(name, ["engine=transformers"]), tmp_path, world=4)
    old, ref, advantages = torch.randn(6, 9), torch.randn(6, 9), torch.randn(6) * 2
    mask = (torch.rand(6, 9) < 0.8).int()
    formula = dict(FORMULAS[name])
    norm = formula.pop("norm")(mask, config)
    logps = [(old + torch.randn(6, 9)).clone().requires_grad_() for _ in range(1)][0]
    twin = logps.detach().clone().requires_grad_()
    theirs, ours = (
        loss_of(config, logps, old, ref, advantages, mask),
        published(twin, old, ref, advantages, mask, norm=norm, **formula),
    )
    theirs.backward()
    ours.backward()
    assert torch.allclose(theirs, ours, atol=1e-6) and torch.allclose(logps.grad, twin.grad, atol=1e-7)


def test_dual_clip_is_felt(tmp_path):
    "Left to TRL's default (no dual clip) the loss would be another."
    config = grpo_config(load_recipe("paper/speciarl", ["engine=transformers"]), tmp_path, world=4)
    old, mask = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.int)
    with_cap = loss_of(config, torch.full((1, 1), 2.0), old, old, torch.tensor([-1.0]), mask)
    config.delta = None
    assert loss_of(config, torch.full((1, 1), 2.0), old, old, torch.tensor([-1.0]), mask) > with_cap + 1
