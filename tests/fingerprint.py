"""What a step computes, written down so that it can be compared. What that is for is said in test_fingerprints.py.

A *fingerprint* is a tree of dicts and lists. Its leaves are texts and whole numbers, which must be equal, and floats,
which must agree within `RTOL` and `ATOL`. Those in data/fingerprints.json are written by the first of these alone:

    python tests/fingerprint.py --pin [FAMILY ...]       write the fingerprints of all families, or of those named
    python tests/fingerprint.py --compare [FAMILY ...]   say how far each float is from the pinned one

Another processor adds up in another order, so its floats differ in the last digits. How far that carries was measured
over all families: the largest difference of a float above 0.001, relative to its value, and the most that the decision
of any draw of a token moved (see `closest_draw`). Not one token was another.

    plain kernels (ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE)   0.7e-5   1.8e-4
    without oneDNN (torch.backends.mkldnn.flags(enabled=False))                                0.9e-5   1.5e-4
    every weight moved by about one unit in its last place before the run                      0.7e-5   1.3e-4
    the policy in float64                                                                      1.2e-5   2.3e-4

`RTOL` is 25 times the largest; `ATOL` is for losses that are zero but for rounding. Tokens are compared exactly: no
fingerprint is pinned in which one was drawn by less than `MARGIN`, four times the largest movement.
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from speciarl.core.scale import Category
from speciarl.data.fieldguide import DOMAINS, all_words, plates
from speciarl.data.trees import load_trees
from speciarl.fine_r1.closed import evaluate_closed
from speciarl.fine_r1.methods import way_of
from speciarl.judges.tree import TreeJudge
from speciarl.judges.verdict import Verdict
from speciarl.policy.base import caption_batches, fit, one_thread, training_versions
from speciarl.policy.engines import Sampling, TransformersEngine
from speciarl.policy.model import build_small, load_policy, small_processor
from speciarl.policy.predict import predict
from speciarl.policy.prompts import load_prompt
from speciarl.training.loop import train
from speciarl.training.recipe import Recipe, load_recipe
from speciarl.training.reward import judge_texts
from speciarl.training.settings import make_trainer

PINNED = Path(__file__).parent / "data" / "fingerprints.json"
RTOL, ATOL = 3e-4, 3e-6
MARGIN = 1e-3


# -- what one run of a recipe computes


@contextmanager
def no_gpu() -> Iterator[None]:
    "Hide graphics processors: they draw other random numbers."
    with patch("torch.cuda.is_available", lambda: False):
        yield


def marked(tokenizer, ids: torch.Tensor, in_loss: torch.Tensor) -> str:
    "The tokens `ids` as text, those outside the loss with a dash in front; padding outside the loss is left out."
    tokens = zip(tokenizer.convert_ids_to_tokens(ids.tolist()), in_loss.bool().tolist(), strict=True)
    return " ".join(
        token if inside else f"-{token}" for token, inside in tokens if inside or token != tokenizer.pad_token
    )


def shown(tokenizer, inputs: dict) -> tuple[list[str], list[str]]:
    "What a batch asks, each question once, and what is learned from it, row by row."
    if "completion_ids" in inputs:  # rollouts
        prompts = zip(inputs["prompt_ids"], inputs["prompt_mask"])
        learned = [marked(tokenizer, *row) for row in zip(inputs["completion_ids"], inputs["completion_mask"])]
    else:  # the labels of fine-tuning are -100 outside the loss, and so in the prompt
        in_loss = inputs["labels"] != -100
        starts = in_loss.int().argmax(1).tolist()
        prompts = [
            (ids[:start], mask[:start])
            for ids, mask, start in zip(inputs["input_ids"], inputs["attention_mask"], starts)
        ]
        learned = [
            marked(tokenizer, ids[start:], mask[start:])
            for ids, mask, start in zip(inputs["input_ids"], in_loss, starts)
        ]
    asked = [tokenizer.decode(ids[mask.bool()]) for ids, mask in prompts]
    return list(dict.fromkeys(asked)), learned


def part_of(name: str) -> str:
    "The part of a policy that a parameter belongs to."
    if "lora_" in name:
        return "adapter"
    if "visual" in name:
        return "vision"
    return "words" if "embed_tokens" in name else "layers"


class Weights:
    "The parameters of a model, and what they were."

    def __init__(self, model: torch.nn.Module):
        self.parameters = dict(model.named_parameters())
        self.before = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def moved(self) -> dict[str, float]:
        "How far (Euclidean distance) each part of the model has come."
        squares: dict[str, float] = {}
        for name, parameter in self.parameters.items():
            way = parameter.detach().double() - self.before[name].double()
            squares[part_of(name)] = squares.get(part_of(name), 0.0) + way.square().sum().item()
        return {part: math.sqrt(total) for part, total in squares.items()}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def paid(rows: Sequence[dict]) -> list[str]:
    "Rollouts as text, a line for each group: who was asked about, and what was answered, judged and paid."
    groups: dict[str, list[str]] = {}
    for row in rows:
        noised = f" counted as {row['noised']}" if "noised" in row else ""
        reward = "unpaid" if row["reward"] is None else f"{row['reward']:.6g}"
        groups.setdefault(f"{row['uid']}, {row['label']}", []).append(
            f"{row['answer']} is {row['category']}{noised}, {reward}"
        )
    return [f"{asked}: {'; '.join(answers)}" for asked, answers in groups.items()]


def trained(recipe: Recipe, judge: Callable | None = None, mutate: Callable[[Any], None] | None = None) -> dict:
    """The fingerprint of a run.

    Each step has what was rolled out and paid (if that was done in it), what was asked, the tokens that were learned
    from, their advantages, the loss of each micro-batch and the norm of the gradient; `moved` is how far the weights
    came. judge: in place of the recipe's. mutate: called with the trainer before it starts.
    """
    way = way_of(recipe)
    steps = [
        {"rollouts": [], "asked": [], "learned": [], "advantages": [], "loss": []}
        for _ in range(recipe.optimiser_steps)
    ]
    weights = []

    def make(*args):
        trainer = (way.trainer or make_trainer)(*args)
        if mutate:
            mutate(trainer)
        weights.append(Weights(trainer.model))
        compute_loss = trainer.compute_loss

        def noted(model, inputs, *others, **settings):
            step = steps[trainer.state.global_step]
            asked, learned = shown(trainer.processing_class.tokenizer, inputs)
            step["asked"] += [question for question in asked if question not in step["asked"]]
            step["learned"] += learned
            step["advantages"] += inputs["advantages"].tolist() if "advantages" in inputs else []
            loss = compute_loss(model, inputs, *others, **settings)
            step["loss"].append(loss.item())
            return loss

        trainer.compute_loss = noted
        return trainer

    with no_gpu(), TemporaryDirectory() as folder:
        out = train(recipe, Path(folder) / "run", judge=judge, way=way._replace(trainer=make))
        log = lines(out / "log.jsonl")
        rollouts = lines(out / "rollouts.jsonl") if recipe.samples else []
    found = {}
    for number, step in enumerate(steps):
        step["rollouts"] = paid([row for row in rollouts if row["step"] == number])
        filled = {key: value for key, value in step.items() if value}
        found[f"step {number + 1}"] = {**filled, "grad_norm": log[number]["grad_norm"]}
    return {**found, "moved": weights[-1].moved()}


class Forgetful:
    "The tree judge, but it has no verdict on an answer that is wrong or less specific."

    identity = "forgetful"

    def __init__(self, dataset: str):
        self.judge = TreeJudge(load_trees([dataset]), strict=True)

    def __call__(self, pairs, datasets=None) -> list[Verdict]:
        forgotten = (Category.WRONG, Category.LESS_SPECIFIC)
        return [
            Verdict(None, "forgotten") if verdict.category in forgotten else verdict
            for verdict in self.judge(pairs, datasets)
        ]


# -- steps that have no recipe

FORMS = """<think> x </think> <answer> hooded warbler </answer>
<answer> Hooded Warblers </answer>
<think> x </think> <answer> a hooded warbler . </answer>
<think> x </think> <answer> warbler </answer>
<think> x </think> <answer> bird </answer>
<think> x </think> <answer> animal </answer>
<think> x </think> <answer> none </answer>
<think> x </think> <answer> yellow warbler </answer>
<think> x </think> <answer> warbler or sparrow </answer>
<think> x </think> <answer> hooded warbler , yellow warbler </answer>
<think> x </think> <answer> adult male hooded warbler </answer>
<think> x </think> <answer> steam engine </answer>
<think> x </think> <answer> warbler </answer> <answer> bird </answer>
<think> </think> <answer> warbler </answer>
<think> x </think> <answer> </answer>
<think> x </think> hooded warbler
<answer> hooded warbler""".splitlines()


def judged() -> dict:
    "Verdicts on texts of many forms, by a judge that is strict and one that is not, with thinking asked for and not."
    found = {}
    for strict in (True, False):
        for think in (True, False):
            judge = TreeJudge(load_trees(["birds"]), strict=strict)
            rows = found[f"strict {strict}, think {think}"] = []
            for one in judge_texts(judge, FORMS, ["hooded warbler"] * len(FORMS), ["birds"] * len(FORMS), think):
                category = "no verdict" if one.verdict.category is None else one.verdict.category.wire
                rows.append(
                    f"{one.answer}: {category} by {one.verdict.source}, {'formatted' if one.formatted else 'broken'}"
                )
    return found


def answered() -> dict:
    "Answers about test images, greedy and drawn."
    samples = [sample for domain in DOMAINS for sample in plates(domain, "test", 2)]
    ways = {
        "greedy": Sampling(max_tokens=16),
        "drawn": Sampling(n=2, max_tokens=16),
        "all tokens": Sampling(n=2, temperature=1.0, top_p=1.0, seed=1, max_tokens=16),
    }
    found = {}
    with no_gpu(), one_thread():
        engine = TransformersEngine(load_policy("fieldguide-base"), batch=16)
        for name, how in ways.items():
            rows = predict(engine, samples, load_prompt("general"), how=how)
            found[name] = [f"{row['sample_id']}, {row['label']}: {row['text']} -> {row['answer']}" for row in rows]
    return found


def chosen() -> dict:
    "Questions with options, and what the policy chose."
    samples = [sample for domain in DOMAINS for sample in plates(domain, "validation", 2)]
    found = {}
    with no_gpu(), one_thread():
        policy = load_policy("fieldguide-base")
        for distractors in ("sibling", "random"):
            rows = evaluate_closed(policy, samples, distractors=distractors).rows()
            found[distractors] = [
                f"{row['sample_id']}, {row['label']} among {', '.join(row['options'])}: "
                f"{row['text']} -> {row['chosen']}, {row['why']}"
                for row in rows
            ]
    return found


def drawn() -> dict:
    "What the base policy is shown, and two steps of it from random weights."
    processor = small_processor([*all_words(), load_prompt("general"), load_prompt("specific")])
    losses: list[float] = []
    with no_gpu(), one_thread():
        model = build_small(processor)
        weights = Weights(model)
        batches = list(caption_batches(processor, 2, size=8))
        fit(model, iter(batches), 2, on_step=lambda step, loss: losses.append(loss))
    found = {}
    for number, (batch, loss) in enumerate(zip(batches, losses, strict=True), 1):
        asked, learned = shown(processor.tokenizer, batch)
        pictures = [picture.mean().item() for picture in batch["pixel_values"].chunk(len(learned))]
        found[f"step {number}"] = {"asked": asked, "learned": learned, "pictures": pictures, "loss": [loss]}
    return {**found, "moved": weights.moved()}


# -- the families


class Family(NamedTuple):
    "What shares an algorithm: the step whose version is raised when it changes, what computes it, its recipe if any."

    step: str  # a key of VERSIONS
    compute: Callable[..., dict]  # takes `mutate` if there is a recipe
    recipe: Recipe | None = None


def of(name: str, *changes: str, judge: Callable | None = None) -> Family:
    "The family of a packaged recipe, with `changes` that make it small."
    recipe = load_recipe(name, [*changes])
    return Family(recipe.method, partial(trained, recipe, judge), recipe)


# Two steps of three groups of six. They would not move far at the learning rates of the recipes: it is higher here, and
# so is the weight of the divergence from the base (KL).
SMALL = ["steps=2", "prompts_per_step=3", "rollouts=6", "micro_batch=18", "learning_rate=1e-3"]
GRPO = [*SMALL, "data.birds=12", "prompts_per_generation=3", "save_every=2", "seed=3"]
KL = "kl=0.1"
FLAT = ["seed=2", "overlong=8"]  # one group of the second step is flat, and all answers are charged for their length
# Cut as the paper's batches are, and far enough for both clips to act in the second step.
CLIPPED = ["prompts_per_generation=6", "micro_batch=6", "save_every=1", "learning_rate=4e-3", "dual_clip=1.5"]
TUNING = ["steps=2", "prompts_per_step=4", "micro_batch=4", "save_every=2"]
TAPO = [*SMALL, "data.birds=60", "shots=2", "prompts_per_generation=6", "save_every=1", "max_tokens=16"]

FAMILIES = {
    "dynamic": of("smoke/speciarl", *GRPO, KL),
    "dynamic, second best": of("smoke/anchor2", *GRPO, KL),
    "dynamic, one paid": of("smoke/speciarl_single", *GRPO, KL),
    "static": of("smoke/rft", *GRPO, KL),
    "scala1": of("smoke/scala1", *GRPO, KL),
    "scala2": of("smoke/scala2", *GRPO, KL),
    "scala3": of("smoke/scala3", *GRPO, KL),
    "priced": of("smoke/speciarl", *GRPO, KL, "rule=priced"),
    "Dr.GRPO": of("smoke/drgrpo", *GRPO),
    "DAPO": of("smoke/dapo", *GRPO, *FLAT),
    "DAPO, dynamic sampling": of("smoke/dapo_ds", *GRPO, *FLAT),
    "mean of each rollout": of("smoke/speciarl", *GRPO, KL, "loss=grpo"),
    "noise": of("smoke/noise25", *GRPO, KL, "noise=0.5"),
    "LoRA": of("smoke/speciarl", *GRPO, KL, "lora_rank=4"),
    "several data sets": of("smoke/mixed", *GRPO, KL, "data={birds: 2, food: 1, flowers: 1, cars: 1, aircraft: 1}"),
    "two steps on a generation": of("smoke/speciarl", *GRPO, KL, *CLIPPED),
    "broken formats": of("smoke/speciarl", *GRPO, KL, "think=true", "max_tokens=10"),  # too few for a name of two words
    "missing verdicts": of("smoke/speciarl", *GRPO, KL, judge=Forgetful("birds")),
    "SFT": of("smoke/sft", *TUNING, "data.birds=12"),
    "SFT, LoRA": of("smoke/sft", *TUNING, "data.birds=12", "lora_rank=4", "micro_batch=2"),
    "self": of("smoke/self", *TUNING, "data.birds=12", "rollouts=6"),
    "CoT": of("smoke/cot", *TUNING, "data={birds: 30}", "shots=1"),
    "TAPO": of("smoke/tapo", *TAPO),
    "TAPO, nearest in the tree": of("smoke/tapo_sibling", *TAPO),
    "TAPO, dynamic": of("smoke/tapo_dynamic", *TAPO),
    "TAPO, no positives": of("smoke/tapo_no_positives", *TAPO),
    "TAPO, no divergence": of("smoke/tapo_no_inter", *TAPO),
    "TAPO, no entropy": of("smoke/tapo_no_entropy", *TAPO, "negative_entropy_weight=0.03"),
    "TAPO, no entropy on negatives": of("smoke/tapo", *TAPO, "negative_entropy_weight=0"),
    "TAPO, no band": of("smoke/tapo_no_band", *TAPO),
    "TAPO, nothing added": of("smoke/tapo_off", *TAPO),
    "answers": Family("sample", answered),
    "verdicts": Family("verdict", judged),
    "closed world": Family("closed", chosen),
    "base": Family("base", drawn),
}


# -- comparing


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    "The leaves of a fingerprint, each with the way to it: `step 1, loss, 1`."
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}, {key}" if path else str(key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree, 1):
            yield from leaves(value, f"{path}, {number}")
    else:
        yield path, tree


def alike(was: Any, now: Any) -> bool:
    "Whether two leaves agree, floats within the tolerance."
    if isinstance(was, float) and isinstance(now, float):
        return math.isclose(was, now, rel_tol=RTOL, abs_tol=ATOL)
    return was == now


def differences(pinned: dict, found: dict) -> list[tuple[str, Any, Any]]:
    "Where two fingerprints disagree: the way there, what was pinned, what is found; None for a leaf that one lacks."
    was, now = dict(leaves(pinned)), dict(leaves(found))
    return [
        (path, was.get(path), now.get(path))
        for path in dict.fromkeys([*was, *now])
        if not alike(was.get(path), now.get(path))
    ]


def complaint(name: str, step: str, unlike: Sequence[tuple], then: dict[str, str], here: dict[str, str]) -> str:
    "What the test says of a family that has changed. `then`, `here`: the libraries when it was pinned, and now."
    what = "; ".join(f"{path}: {was} -> {now}" for path, was, now in unlike[:3])
    more = f"; and {len(unlike) - 3} more" if len(unlike) > 3 else ""
    changed = [
        f"{library} {old}, here {here.get(library)}" for library, old in then.items() if here.get(library) != old
    ]
    libraries = f" It was pinned with {'; '.join(changed)}." if changed else ""
    return (
        f"{name}: this step now computes something else ({what}{more}): raise VERSIONS[{step!r}] in "
        f"speciarl.compendium.artefacts, so that nothing made before is taken for it, and pin what it computes now "
        f"(python tests/fingerprint.py --pin {name!r}); or mend it.{libraries}"
    )


# -- pinning


def read_pinned() -> dict:
    "The pinned fingerprints by family (`families`), and the libraries that computed them (`computed with`)."
    return json.loads(PINNED.read_text(encoding="utf-8"))


def rounded(tree: Any) -> Any:
    "A fingerprint with floats of seven digits."
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [rounded(value) for value in tree]
    return float(f"{tree:.7g}") if isinstance(tree, float) else tree


@contextmanager
def closest_draw(found: list[float]) -> Iterator[None]:
    """Note for each draw of tokens by how much its closest decision was taken.

    torch draws the token with the largest p / q, where q is exponential noise; this is the difference of the two
    largest log(p / q).
    """
    multinomial = torch.multinomial

    def noted(probabilities, num_samples, **settings):
        state = torch.get_rng_state()
        noise = torch.empty_like(probabilities).exponential_()
        torch.set_rng_state(state)
        tokens = multinomial(probabilities, num_samples, **settings)
        best = (probabilities.log() - noise.log()).topk(2)
        assert torch.equal(best.indices[:, :1], tokens), "this torch draws tokens in another way"
        found.append((best.values[:, 0] - best.values[:, 1]).min().item())
        return tokens

    with patch("torch.multinomial", noted):
        yield


def pin(names: Sequence[str]) -> None:
    "Write the fingerprints of families."
    pinned = read_pinned() if PINNED.exists() else {"computed with": training_versions(), "families": {}}
    if pinned["computed with"] != training_versions() and set(names) < set(FAMILIES):
        sys.exit(f"the others were computed with {pinned['computed with']}, not {training_versions()}; pin all")
    for name in names:
        draws = [math.inf]
        with closest_draw(draws):
            pinned["families"][name] = rounded(FAMILIES[name].compute())
        if min(draws) < MARGIN:
            drawn_by = f"a token was drawn by a margin of {min(draws):.1e}, and another processor may draw another"
            sys.exit(f"{name}: {drawn_by}; change the seed of this family")
        print(f"{name}: closest draw {min(draws):.1e}")
    ordered = {
        "computed with": training_versions(),
        "families": {name: pinned["families"][name] for name in FAMILIES if name in pinned["families"]},
    }
    text = json.dumps(ordered, indent=1, ensure_ascii=False)
    on_one_line = re.sub(r"\[[-+\de.,\s]+\]", lambda numbers: "[" + " ".join(numbers[0][1:-1].split()) + "]", text)
    PINNED.write_text(on_one_line + "\n", encoding="utf-8")


def compare(names: Sequence[str]) -> None:
    "Print the largest difference of a float, relative to its pinned value, of each family."
    for name in names:
        was, now = dict(leaves(read_pinned()["families"][name])), dict(leaves(FAMILIES[name].compute()))
        floats = [path for path in was if isinstance(was[path], float) and abs(was[path]) > 1e-3 and path in now]
        largest = max((abs(was[path] - now[path]) / abs(was[path]) for path in floats), default=0.0)
        others = sum(was[path] != now.get(path) for path in was if not isinstance(was[path], float))
        print(f"{name}: {largest:.1e}, and {others} texts differ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    doing = parser.add_mutually_exclusive_group(required=True)
    doing.add_argument("--pin", action="store_true")
    doing.add_argument("--compare", action="store_true")
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    given = parser.parse_args()
    unknown = [name for name in given.families if name not in FAMILIES]
    if unknown:
        sys.exit(f"no family {unknown[0]!r}: use one of {', '.join(FAMILIES)}")
    (pin if given.pin else compare)(given.families or list(FAMILIES))
