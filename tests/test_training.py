"Training: what moves, what stays, what is refused."

import json

import pytest
import torch

from speciarl.policy import load_policy, weights_hash
from speciarl.recipes import load_recipe
from speciarl.scale import UserError
from speciarl.training import exact_answer, grpo_config, make_trainer, one_thread, step_log, train, training_rows

TINY = ["steps=2", "images=8", "prompts_per_step=2", "rollouts=4"]


def test_a_killed_run_leaves_no_card_and_can_be_run_again(tmp_path, monkeypatch):
    "Killed while saving: no card, so not a run; started again it ends like an uninterrupted one."
    recipe = load_recipe("smoke/rft", TINY)
    whole = train(recipe, tmp_path / "whole")
    monkeypatch.setitem(train.__globals__, "step_log", lambda history: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "killed")
    assert not (tmp_path / "killed" / "card.json").exists()
    monkeypatch.undo()
    again = train(recipe, tmp_path / "killed")
    assert weights_hash(again / "policy") == weights_hash(whole / "policy")
    assert (again / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()


def test_rules_and_seeds_change_the_outcome(tmp_path):
    hashes = {name: weights_hash(train(load_recipe(recipe, ["steps=2", "images=8", "prompts_per_step=4", "rollouts=8", *changes]), tmp_path / name) / "policy")
              for name, recipe, changes in (("a", "smoke/rft", []), ("b", "smoke/speciarl", []), ("c", "smoke/speciarl", ["seed=1"]))}
    assert len(set(hashes.values())) == 3


def test_the_log_has_every_step_and_the_levels(tmp_path):
    out = train(load_recipe("smoke/speciarl", TINY), tmp_path / "run")
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert sum(value for key, value in rows[0].items() if key.startswith("share_")) == pytest.approx(1, abs=1e-5)
    assert {"reward", "kl", "entropy", "loss"} <= set(rows[0])


def test_published_settings_are_not_left_to_defaults(tmp_path):
    config = grpo_config(load_recipe("smoke/speciarl"), tmp_path)
    assert (config.loss_type, config.delta, config.beta, config.use_bias_correction_kl) == ("bnpo", 3.0, 0.01, False)
    assert (config.lr_scheduler_type, config.weight_decay, config.scale_rewards, config.temperature, config.top_p, config.top_k) == ("constant", 0.01, "group", 1.0, 1.0, 0)
    assert config.per_device_train_batch_size == 80 and config.num_generations == 10


def test_the_vision_tower_is_frozen(tmp_path):
    policy = load_policy("fieldguide-base", dtype=torch.float32)
    make_trainer(load_recipe("smoke/speciarl", TINY), policy, tmp_path)
    trainable = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert trainable and not any("visual" in name for name in trainable)


def test_fine_tuning_teaches_the_exact_name_and_only_birds():
    rows = training_rows(load_recipe("smoke/sft", ["images=30"]))
    assert {row["dataset"] for row in rows} == {"birds"}
    assert exact_answer("hooded warbler") == "<think> clear view , exact name </think> <answer> hooded warbler </answer>"
    assert len({row["uid"] for row in rows}) == 30


def test_too_few_images(tmp_path):
    with pytest.raises(UserError, match="^smoke/speciarl: 1 images do not fill one step of 2 prompts; lower prompts_per_step$"):
        train(load_recipe("smoke/speciarl", TINY + ["images=1"]), tmp_path / "x")


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    recipe = load_recipe("smoke/sft", ["steps=5", "images=8", "prompts_per_step=2", "learning_rate=1e30"])
    with pytest.raises(UserError, match="^the loss is not a number at step [1-5]: lower learning_rate$"):
        train(recipe, tmp_path / "x")
    assert not (tmp_path / "x" / "card.json").exists()


def test_a_finished_run_is_not_overwritten(tmp_path):
    out = train(load_recipe("smoke/sft", TINY[:3]), tmp_path / "run")
    before = weights_hash(out / "policy")
    with pytest.raises(UserError, match="holds a finished run; choose another --out$"):
        train(load_recipe("smoke/sft", TINY[:3]), out)
    assert weights_hash(out / "policy") == before


def test_one_thread_is_given_back():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), one_thread():
        assert torch.get_num_threads() == 1
        1 / 0
    assert torch.get_num_threads() == before


def test_step_log_drops_the_summary():
    assert step_log([{"loss": 1.0, "step": 1, "completions/mean_length": 9.0, "lr": 3}, {"train_runtime": 2.0}]) == [{"loss": 1.0, "step": 1, "mean_length": 9.0}]
