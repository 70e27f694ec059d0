"Training: the data, the settings, what is trained and what stays, what a run leaves behind."

import gc
import importlib
import json
import weakref
from pathlib import Path

import pytest
import torch
from PIL import Image

from speciarl.core.files import weights_digest
from speciarl.core.scale import Category, UserError, extract_answer
from speciarl.data.fieldguide import plates
from speciarl.data.samples import bounded
from speciarl.data.trees import load_trees
from speciarl.judges.tree import TreeJudge
from speciarl.judges.verdict import Verdict
from speciarl.policy.base import one_thread
from speciarl.policy.engines import Sampling, draw
from speciarl.policy.model import PACKAGED, Policy, load_policy
from speciarl.training.checkpoints import step_log, step_times, validate
from speciarl.training.loop import best_answers, self_taught, train
from speciarl.training.recipe import load_recipe, save_interval
from speciarl.training.settings import (
    exact_answer,
    grpo_config,
    label_trainer,
    make_reward,
    make_trainer,
    picture_opener,
    recipe_judge,
    training_rows,
    training_samples,
)

TINY = ["steps=2", "data.birds=8", "prompts_per_generation=2", "prompts_per_step=2", "rollouts=4", "micro_batch=8"]
SFT = ["steps=2", "data.birds=8", "prompts_per_step=2", "micro_batch=2"]
LORA = ["lora_rank=4", "lora_alpha=8"]

training = importlib.import_module("speciarl.training.loop")
checkpoints = importlib.import_module("speciarl.training.checkpoints")


def recipe(*changes, name="smoke/speciarl"):
    return load_recipe(name, [*TINY, *changes])


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def trainer_of(folder: Path, *changes):
    r = recipe(*changes)
    return make_trainer(r, load_policy("fieldguide-base", dtype=torch.float32), training_samples(r), folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return train(recipe("save_every=1"), tmp_path_factory.mktemp("run") / "run")


# -- data


def test_rows_name_pictures_and_carry_what_the_reward_needs():
    samples = training_samples(load_recipe("smoke/sft", ["data.birds=30", "data.food=4"]))
    rows = training_rows(samples, "general")
    assert [row["dataset"] for row in rows] == ["birds"] * 30 + ["food"] * 4 and len({row["uid"] for row in rows}) == 34
    assert (
        set(rows[0]) == {"prompt", "picture", "label", "dataset", "uid"}
        and rows[0]["picture"] == samples[0].id
        and rows[0]["label"] == samples[0].label
    )
    assert rows[0]["prompt"][0]["role"] == "user" and "<answer>" in rows[0]["prompt"][0]["content"]
    picture = picture_opener(samples)(rows[3]["picture"])
    assert picture.tobytes() == samples[3].image.tobytes()


def test_seeds_draw_other_plates():
    first, second, again = ([s.id for s in training_samples(recipe(f"seed={seed}"))] for seed in (0, 1, 0))
    assert first == again and not set(first) & set(second)


@pytest.mark.parametrize(
    "size, bound, expected",
    [
        ((100, 50), 401408, (100, 50)),
        ((100, 50), None, (100, 50)),
        ((4000, 3000), None, (4000, 3000)),
        ((1000, 500), 401408, (896, 448)),
        ((4000, 400), 401408, (1988, 196)),
    ],
)
def test_large_pictures_are_scaled_to_whole_image_tokens(size, bound, expected):
    small = bounded(Image.new("RGB", size), bound)
    assert small.size == expected
    assert small.size == size or small.width % 28 == small.height % 28 == 0


def test_benchmarks_need_their_folder(tmp_path):
    with pytest.raises(
        UserError, match="^paper/speciarl trains on cub200: give the folder that holds the data sets with --data-root$"
    ):
        training_samples(load_recipe("paper/speciarl"))
    with pytest.raises(UserError) as error:
        training_samples(load_recipe("paper/speciarl"), tmp_path)
    assert "cub200" in str(error.value) and "\n" not in str(error.value)


def test_fine_tuning_teaches_the_exact_name():
    assert (
        exact_answer("hooded warbler") == "<think> clear view , exact name </think> <answer> hooded warbler </answer>"
    )
    assert exact_answer("pug", "a dog") == "<think> a dog </think> <answer> pug </answer>"


def test_fine_tuning_thinks_what_its_recipe_says(tmp_path):
    recipe = load_recipe("smoke/sft", ["data.birds=4", "prompts_per_step=2", "micro_batch=2", "thought=clear view"])
    samples = training_samples(recipe)
    trainer = label_trainer(recipe, load_policy(recipe.policy), samples, tmp_path)
    [said] = trainer.train_dataset[0]["completion"]
    assert said["content"] == f"<think> clear view </think> <answer> {samples[0].label} </answer>"


# -- settings


def test_published_settings_are_not_left_to_trls_defaults(tmp_path):
    config = grpo_config(load_recipe("paper/speciarl", ["engine=transformers", "dtype=float32"]), tmp_path, 4)
    assert (
        config.loss_type,
        config.delta,
        config.beta,
        config.use_bias_correction_kl,
        config.epsilon,
        config.epsilon_high,
    ) == ("bnpo", 3.0, 0.01, False, 0.2, 0.2)
    assert (
        config.lr_scheduler_type,
        config.weight_decay,
        config.scale_rewards,
        config.temperature,
        config.top_p,
        config.top_k,
    ) == ("constant", 0.01, "group", 1.0, 1.0, 0)
    assert (
        config.num_iterations,
        config.max_grad_norm,
        config.learning_rate,
        config.max_completion_length,
        config.mask_truncated_completions,
        config.warmup_steps,
    ) == (1, 1.0, 3e-5, 2048, False, 0)
    dapo, doctor = (
        grpo_config(load_recipe(f"paper/{name}", ["engine=transformers", "dtype=float32"]), tmp_path, 4)
        for name in ("dapo", "drgrpo")
    )
    assert (dapo.loss_type, dapo.epsilon_high, dapo.delta, dapo.beta) == ("dapo", 0.28, 10.0, 0.0) and (
        doctor.loss_type,
        doctor.scale_rewards,
        doctor.beta,
    ) == ("dr_grpo", "none", 0.0)


def test_checkpoints_fall_on_the_ends_of_generations():
    assert (
        save_interval(load_recipe("paper/speciarl")) == 22 and save_interval(load_recipe("paper/domain_birds")) == 44
    ), "four steps a generation"
    assert save_interval(load_recipe("smoke/speciarl")) == 10 and save_interval(recipe("steps=1")) == 1
    assert save_interval(recipe("prompts_per_generation=8", "steps=5")) % 4 == 0


def test_the_reward_gets_what_the_recipe_says():
    reward = make_reward(
        recipe("anchor_rank=3", "noise=0.25", "think=true", "overlong=4", "seed=9"), recipe_judge(recipe())
    )
    assert (reward.num_generations, reward.anchor_rank, reward.noise, reward.think, reward.overlong, reward.seed) == (
        4,
        3,
        0.25,
        True,
        (16, 4),
        9,
    )
    assert reward.rule.keywords == {"k": 3} and make_reward(recipe(), recipe_judge(recipe())).overlong is None


def test_the_judge_of_the_field_guide_is_strict_and_that_of_photographs_is_not():
    assert recipe_judge(recipe()).strict and set(recipe_judge(recipe("data.food=3")).trees) == {"birds", "food"}
    assert not recipe_judge(load_recipe("paper/speciarl", ["judge=taxonomy"])).strict


# -- what is trained


def test_the_vision_tower_is_frozen(tmp_path):
    trainer = trainer_of(tmp_path)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in trainer.model.named_parameters() if "visual" not in name}


def test_adapters_stand_on_the_linear_layers_of_the_language_model_only(tmp_path):
    trainer = trainer_of(tmp_path, *LORA)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    layers = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in trained}
    assert all(".lora_A." in name or ".lora_B." in name for name in trained)
    parts = (
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    )
    assert layers == {f"model.language_model.layers.{i}.{part}" for i in range(3) for part in parts}, (
        "none on vision, merger, embeddings or lm_head"
    )
    assert trainer.ref_model is None


def test_the_reference_is_the_base_with_the_adapter_off(tmp_path):
    "Log-probabilities of the KL term are those of the untouched policy, also after the adapter has moved."
    trainer = trainer_of(tmp_path, *LORA)
    for name, parameter in trainer.model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    trainer.model.eval()
    with torch.no_grad():
        batch = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in (0,) * 4 + (1,) * 4])
        ids, mask = (torch.cat([batch[f"prompt_{kind}"], batch[f"completion_{kind}"]], 1) for kind in ("ids", "mask"))
        fields = {key: batch[key] for key in ("pixel_values", "image_grid_thw", "mm_token_type_ids") if key in batch}
        fields.setdefault("mm_token_type_ids", (ids == trainer._image_pad_token_id).long())
        base = (
            load_policy("fieldguide-base", dtype=torch.float32)
            .model(input_ids=ids, attention_mask=mask, **fields)
            .logits[:, :-1]
            .log_softmax(-1)
        )
        base = base.gather(2, ids[:, 1:, None])[:, -batch["completion_ids"].shape[1] :, 0]
        adapted = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, mask, batch["completion_ids"].shape[1], **fields, num_images=batch["num_images"]
        )[0]
    real = batch["completion_mask"].bool()
    assert torch.allclose(batch["ref_per_token_logps"][real], base[real], atol=1e-5)
    assert (base - adapted)[real].abs().max() > 0.01, "the adapter does something"


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, Path]:
    "The same LoRA run, exported both ways."
    folder = tmp_path_factory.mktemp("exported")
    return {
        kind: train(recipe(*LORA, f"export={kind}", "learning_rate=3.0e-3"), folder / kind) / "policy"
        for kind in ("merged", "adapter")
    }


def test_an_adapter_is_small_and_names_its_base(exported):
    files = {path.name for path in exported["adapter"].iterdir()}
    assert (
        "adapter_model.safetensors" in files
        and "model.safetensors" not in files
        and (exported["adapter"] / "adapter_model.safetensors").stat().st_size < 300_000
    )
    config = json.loads((exported["adapter"] / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "fieldguide-base" and (config["r"], config["lora_alpha"]) == (4, 8)
    assert str(PACKAGED["fieldguide-base"].parent) not in (exported["adapter"] / "README.md").read_text(), (
        "no folder of this machine"
    )


def test_both_exports_are_read_and_say_the_same(exported):
    samples = training_samples(recipe())
    merged, adapter, base = (
        load_policy(where) for where in (exported["merged"], exported["adapter"], "fieldguide-base")
    )
    for name, weight in merged.model.state_dict().items():
        assert torch.allclose(weight, adapter.model.state_dict()[name], atol=1e-6), name
    answers = [
        [text for (text,) in draw(policy, samples, "what is this ? <answer> </answer>", Sampling(max_tokens=16))]
        for policy in (merged, adapter)
    ]
    assert answers[0] == answers[1]
    changed = [
        name
        for name, weight in merged.model.state_dict().items()
        if not torch.equal(weight, base.model.state_dict()[name])
    ]
    assert changed and not any("visual" in name for name in changed)


# -- what a run leaves behind


def test_the_folder_of_a_run(run):
    assert {path.name for path in run.iterdir()} == {
        "policy",
        "card.json",
        "recipe.json",
        "log.jsonl",
        "timing.jsonl",
        "rollouts.jsonl",
    }
    card = json.loads((run / "card.json").read_text())
    assert card["recipe"] == recipe("save_every=1").model_dump(mode="json") and card["sha256"] == weights_digest(
        run / "policy"
    )
    assert (card["processes"], card["resumed_from"], card["judge"]) == (1, 0, recipe_judge(recipe()).identity) and set(
        card["versions"]
    ) == {"torch", "transformers", "trl", "numpy", "pillow"}
    assert load_policy(run / "policy").model.config.model_type == "qwen2_5_vl"


def test_the_log_has_every_step_and_the_levels_and_no_times(run):
    rows = lines(run / "log.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert sum(value for key, value in rows[0].items() if key.startswith("share_")) == pytest.approx(1, abs=1e-5)
    assert {
        "reward",
        "kl",
        "entropy",
        "loss",
        "grad_norm",
        "mean_length",
        "frac_reward_zero_std",
        "share_missing",
        "groups_flat",
        "groups_masked",
        "anchor_specific",
    } <= set(rows[0])
    assert not {"step_time", "judge_seconds"} & set(rows[0])
    assert [set(row) for row in lines(run / "timing.jsonl")] == [{"step", "step_time", "judge_seconds"}] * 2


def test_rollouts_can_be_read_and_agree_with_the_log(run):
    rows, log = lines(run / "rollouts.jsonl"), lines(run / "log.jsonl")
    assert (
        len(rows) == 2 * 2 * 4
        and [row["step"] for row in rows] == [0] * 8 + [1] * 8
        and set(rows[0]) == {"step", "uid", "label", "answer", "category", "source", "reward"}
    )
    assert all(len({row["uid"] for row in rows[i : i + 4]}) == 1 for i in range(0, 16, 4))
    assert sum(row["reward"] for row in rows[:8]) / 8 == pytest.approx(log[0]["reward"])
    assert sum(row["category"] == "specific" for row in rows[:8]) / 8 == pytest.approx(log[0]["share_specific"])


def test_rules_and_seeds_change_the_outcome_and_nothing_else_does(tmp_path, run):
    again = train(recipe("save_every=1"), tmp_path / "again")
    assert weights_digest(again / "policy") == weights_digest(run / "policy")
    others = {
        name: weights_digest(train(recipe(*changes), tmp_path / name) / "policy")
        for name, changes in {
            "static": ["rule=scala1"],
            "seed": ["seed=1"],
            "noise": ["noise=0.9"],
            "rank": ["anchor_rank=4"],
            "drop": ["drop_flat_groups=true"],
        }.items()
    }
    distinct = {weights_digest(run / "policy"), *others.values()}
    assert len(distinct) >= 5 and others["seed"] != weights_digest(run / "policy") != others["noise"]


def test_noise_is_in_the_rollouts(tmp_path):
    rows = lines(train(recipe("noise=0.9", "steps=1"), tmp_path / "run") / "rollouts.jsonl")
    moved = [row for row in rows if "noised" in row]
    assert moved and all(row["noised"] != row["category"] for row in moved)


def test_flat_groups_leave_the_loss_if_the_recipe_says_so(tmp_path):
    """All answers are judged alike, so all groups are flat: dropped, the step changes nothing; kept, the KL term and
    weight decay are all there is."""

    def alike(pairs, datasets=None):
        return [Verdict(Category.GENERIC, "test")] * len(pairs)

    kept = {}
    for drop in ("true", "false"):
        r = recipe(f"drop_flat_groups={drop}", "steps=1")
        trainer = make_trainer(
            r, load_policy("fieldguide-base", dtype=torch.float32), training_samples(r), tmp_path / drop, alike
        )
        batch = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in (0,) * 4 + (1,) * 4])
        flat = torch.tensor(trainer.reward_funcs[0].last_flat)
        kept[drop] = batch["completion_mask"].any(1)[flat].tolist()
    assert kept["true"] and not any(kept["true"]) and all(kept["false"])


# -- the best and the last


def scripted(monkeypatch, values):
    scores = iter(values)
    monkeypatch.setattr(
        checkpoints, "validate", lambda *args: dict(specificity=0.0, correctness=0.0, hm=next(scores), missing=0)
    )


def test_the_best_checkpoint_and_the_last_are_kept(tmp_path, monkeypatch):
    scripted(monkeypatch, [0.2, 0.6, 0.6, 0.4])
    saved = []
    plain = Policy.save
    monkeypatch.setattr(Policy, "save", lambda self, folder: saved.append(Path(folder).name) or plain(self, folder))
    run = train(recipe("steps=4", "save_every=1", "validation_images=2"), tmp_path / "run")
    assert json.loads((run / "best" / "validation.json").read_text()) == {
        "step": 2,
        "specificity": 0.0,
        "correctness": 0.0,
        "hm": 0.6,
        "missing": 0,
    }
    assert saved == ["best.new", "best.new", "policy"] and not (run / "best.new").exists(), "equal is not better"
    assert weights_digest(run / "best") != weights_digest(run / "policy")
    assert load_policy(run / "best").name == str(run / "best")


def test_the_best_is_the_policy_of_its_step(tmp_path, monkeypatch):
    scripted(monkeypatch, [0.2, 0.6])
    run = train(recipe("save_every=1", "validation_images=2"), tmp_path / "run")
    assert weights_digest(run / "best") == weights_digest(run / "policy"), "the best was the last"


def test_asking_held_out_images_does_not_change_the_training(tmp_path, run):
    r = recipe("save_every=1", "validation_images=3")
    asked = train(r, tmp_path / "asked")
    assert (asked / "log.jsonl").read_bytes() == (run / "log.jsonl").read_bytes() and weights_digest(
        asked / "policy"
    ) == weights_digest(run / "policy")
    found = json.loads((asked / "best" / "validation.json").read_text())
    held_out = plates("birds", "validation", 3)
    with one_thread():
        again = validate(load_policy(asked / "best"), held_out, r, recipe_judge(r))
    assert {key: value for key, value in found.items() if key != "step"} == again and not {s.id for s in held_out} & {
        s.id for s in training_samples(r)
    }


def test_fine_tuning_can_be_validated_too(tmp_path):
    run = train(load_recipe("smoke/sft", [*SFT, "validation_images=2"]), tmp_path / "run")
    assert 0 <= json.loads((run / "best" / "validation.json").read_text())["hm"] <= 1


def test_the_best_of_a_lora_run_is_read(tmp_path):
    run = train(recipe(*LORA, "export=adapter", "steps=1", "validation_images=2"), tmp_path / "run")
    assert load_policy(run / "best").name == str(run / "best")


# -- the policy's own best answers

SAMPLES = training_samples(load_recipe("smoke/speciarl", ["data.birds=3"]))


def level(category):
    return f"<think> hm </think> <answer> {category.wire} </answer>"


def by_name(pairs, datasets=None):
    return [Verdict(None if answer == "None" else Category.from_wire(answer), "test") for _, answer in pairs]


def test_an_answer_that_reaches_the_anchor_is_kept():
    generic, wrong, specific = level(Category.GENERIC), level(Category.WRONG), level(Category.SPECIFIC)
    chosen = best_answers(
        [[generic, wrong, "no tag", generic], [generic, specific, wrong, generic], [wrong, wrong, "no tag", wrong]],
        SAMPLES,
        by_name,
    )
    assert chosen == [generic, specific, None], "the best the policy can say, however vague; nothing where all is wrong"


def test_the_choice_among_equals_hangs_on_seed_and_sample_only():
    groups = [[f"<think> {i} </think> <answer> specific </answer>" for i in range(50)]] * 3
    first, again, other = (best_answers(groups, SAMPLES, by_name, seed) for seed in (0, 0, 1))
    assert first == again != other and len(set(first)) > 1


def test_nothing_to_learn_from_is_said(monkeypatch):
    r, policy = load_recipe("smoke/self", ["data.birds=2", "rollouts=2"]), load_policy("fieldguide-base")
    with pytest.raises(
        UserError, match="^smoke/self: no answer of the policy was right; there is nothing to learn from$"
    ):
        self_taught(
            r, policy, training_samples(r), lambda pairs, datasets: [Verdict(Category.WRONG, "test")] * len(pairs)
        )
    chosen, texts = self_taught(r, policy, training_samples(r), TreeJudge(load_trees(["birds"]), strict=True))
    assert len(chosen) == len(texts) <= 2 and all(extract_answer(text) for text in texts)


# -- small things


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1
        1 / 0
    assert torch.get_num_threads() == before


def test_logs_drop_the_summary_and_what_nobody_asked_for():
    history = [
        {
            "loss": 1.0,
            "step": 1,
            "completions/mean_length": 9.0,
            "lr": 3,
            "share_wrong": 0.5,
            "step_time": 2.0,
            "judge_seconds": 0.1,
        },
        {"train_runtime": 2.0},
    ]
    assert step_log(history) == [{"loss": 1.0, "step": 1, "mean_length": 9.0, "share_wrong": 0.5}]
    assert step_times(history) == [{"step": 1, "step_time": 2.0, "judge_seconds": 0.1}]


def test_progress_is_said_ten_times_at_most(tmp_path):
    said = []
    train(
        load_recipe("smoke/sft", ["steps=12", "data.birds=4", "prompts_per_step=1", "micro_batch=1", "save_every=12"]),
        tmp_path / "run",
        say=said.append,
    )
    assert len(said) == 12 and said[0].startswith("step 1/12  loss ") and said[-1].endswith("  0 s left")


def test_a_group_of_processes_outlives_the_trainer():
    """If the trainer's reducer were its last owner, torch would take it down under Python's lock and might wait for
    ever, as runs on two processes now and then did. And it outlives nothing else: no list of the dead grows."""
    dist = torch.distributed
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    with training.orderly():
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
        training.keep_group(model)
        world = weakref.ref(model.process_group)
    gc.collect()
    assert not dist.is_initialized() and world() is not None, "the model's reducer still needs it"
    del model
    gc.collect()
    assert world() is None
