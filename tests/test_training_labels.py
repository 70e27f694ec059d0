"""Labels that are no names are found where a data set is first seen, by reward, verl, trainer and evaluation alike."""

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from refusal import message

from speciarl.core.names import text_labels
from speciarl.core.scale import Category
from speciarl.data.samples import Sample
from speciarl.judges.verdict import Verdict
from speciarl.metrics.runs import evaluate
from speciarl.training.loop import check_judged_labels
from speciarl.training.reward import SpecificityReward, verl_reward
from speciarl.training.trainer import SpecificityTrainer, check_training_labels

NAMES = ["beagle", "pug"]
NO_LABELS = [
    (1, "'1' is the number of a class; say with label_names= what the classes are called, in order"),
    (1.0, "'1.0' is the number of a class; say with label_names= what the classes are called, in order"),
    (None, "'None' is missing; give each row the name of its class, or leave the row out"),
    (float("nan"), "'nan' is missing; give each row the name of its class, or leave the row out"),
    (pd.NA, "'<NA>' is missing; give each row the name of its class, or leave the row out"),
    (pd.NaT, "'NaT' is missing; give each row the name of its class, or leave the row out"),
    ("  ", "'  ' is empty; give each row the name of its class, or leave the row out"),
    (["beagle"], "\"['beagle']\" is of type list; a label is one text, the name of the class"),
    (True, "'True' is of type bool; a label is one text, the name of the class"),
    ("<answer> pug </answer>", "'<answer> pug </answer>' has a tag in it; a label is the name of the class alone, so"),
]


def judge(pairs, datasets=None, done=None):
    "Whatever is the label is specific; what is no text ends the call, as a real judge does."
    return [
        Verdict(Category.SPECIFIC if answer == label.lower() else Category.WRONG, "test") for label, answer in pairs
    ]


judge.identity = "test"
ANSWERS = ["<think> a </think> <answer> pug </answer>", "<think> b </think> <answer> cat </answer>"]


def rewarded(labels, **options):
    reward = SpecificityReward(judge, "dynamic", 2, pause=0, **options)
    return reward(ANSWERS, label=labels, uid=["a", "a"])


def paid_by_verl(labels, **options):
    infos = [{"uid": "a"}] * 2
    return verl_reward(judge, pause=0, **options)(["x"] * 2, ANSWERS, labels, infos)


@pytest.mark.parametrize("value, told", NO_LABELS)
def test_what_is_no_label_is_one_line_everywhere(value, told, tmp_path):
    def line(of, column="label"):
        return f"column {column!r} of {of}, row 2: {told}"

    assert message(rewarded, ["pug", value]).startswith(line("the training set"))
    assert message(paid_by_verl, ["pug", value]).startswith(line("verl's data", "ground_truth"))
    samples = [Sample("a", tmp_path / "a.png", "pug"), Sample("b", tmp_path / "b.png", value)]
    assert message(check_judged_labels, samples, judge).startswith(line("the training set"))
    assert message(evaluate, None, samples, tmp_path / "run", judge).startswith(line("the samples"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("labels", [[1, 1], np.array([1, 1]), [1.0, 1.0], ["pug", "pug"]])
def test_numbers_of_classes_get_their_names(labels):
    wanted = rewarded(["pug", "pug"])
    assert wanted[0] > wanted[1]
    assert rewarded(labels, label_names=NAMES) == wanted
    assert paid_by_verl(labels, label_names=NAMES) == paid_by_verl(["pug", "pug"])
    told = "column 'label' of the training set, row 1: '2' is no number of a class; label_names= has 2 names, from 0"
    assert message(text_labels, [2], NAMES) == told


def trainer(reward, train, test=None):
    return SpecificityTrainer("a model that is not there", reward, train_dataset=train, eval_dataset=test)


def test_the_trainer_looks_at_labels_before_it_loads_anything():
    reward = SpecificityReward(judge, "dynamic", 2)
    numbers = Dataset.from_dict({"prompt": ["?"] * 2, "label": [0, 1]})
    told = "of the training set, row 1: '0' is the number of a class; say with label_names= what the classes are called"
    assert told in message(trainer, reward, numbers)
    lists = Dataset.from_dict({"label": [["pug"]]})
    good = Dataset.from_dict({"label": ["pug"]})
    assert "of the evaluation set, row 1: \"['pug']\" is of type list" in message(trainer, [reward], good, lists)
    assert "of the evaluation set 'hard', row 1" in message(trainer, reward, good, {"easy": good, "hard": lists})
    assert reward.label_names is None


def test_a_class_label_feature_is_read_by_itself():
    features = Features({"prompt": Value("string"), "label": ClassLabel(names=NAMES)})
    numbers = Dataset.from_dict({"prompt": ["?"] * 2, "label": [0, 1]}, features=features)
    reward = SpecificityReward(judge, "dynamic", 2)
    check_training_labels(numbers, [reward])
    assert reward.label_names == NAMES
    assert reward(ANSWERS, label=[1, 1], uid=["a", "a"]) == rewarded(["pug", "pug"])
    unlabelled = Dataset.from_dict({"prompt": ["?"], "label": [-1]}, features=features)
    assert "row 1: '-1' is no number of a class" in message(trainer, SpecificityReward(judge, "dynamic", 2), unlabelled)
