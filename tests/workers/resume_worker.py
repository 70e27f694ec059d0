"""Runs of test_training_faults.py that are killed: resume_worker.py FOLDER.

FOLDER/cases.json says, for each run, its recipe and at which moments it is killed with SIGKILL before it is left to
end. A run is a process of its own (forked after the imports, before torch has done anything), and so is each of its
attempts. Two runs go on at once.
"""

import json
import os
import signal
import sys
from pathlib import Path

import speciarl.training.loop as training
from speciarl.training.recipe import load_recipe
from speciarl.training.reward import SpecificityReward


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_the_mark(step: int) -> None:
    "The checkpoint of `step` is in its folder; its mark is not."
    plain = training.Checkpoints.on_save
    training.Checkpoints.on_save = lambda self, args, state, *others, **more: (
        die() if state.global_step == step else plain(self, args, state, *others, **more)
    )


def after_judging(step: int) -> None:
    "The answers of the generation at `step` are judged and written; nothing has been learned from them."
    plain = SpecificityReward.__call__

    def judged(self, *args, trainer_state=None, **columns):
        paid = plain(self, *args, trainer_state=trainer_state, **columns)
        return die() if trainer_state.global_step == step else paid

    SpecificityReward.__call__ = judged


def after_logging(step: int) -> None:
    "Step `step` is in the log, in the middle of a generation, without a checkpoint."
    plain = training.Watch.on_log

    def logged(self, args, state, *others, **more):
        plain(self, args, state, *others, **more)
        return die() if state.global_step == step else None

    training.Watch.on_log = logged


def while_saving(step: int) -> None:
    "The policy is saved, its card is not."
    plain = training.save_policy

    def saved(recipe, trainer, policy, folder):
        plain(recipe, trainer, policy, folder)
        die()

    training.save_policy = saved


def attempt(case: dict, out: Path, moment: list | None) -> int:
    "Train in a process of its own, killed at `moment`; the signal or exit code it ended with."
    child = os.fork()
    if child == 0:
        if moment:
            globals()[moment[0]](moment[1])
        try:
            training.train(load_recipe(case["recipe"], case["changes"]), out)
        except BaseException as error:
            sys.stderr.write(f"{out.name}: {type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(name: str, case: dict, folder: Path) -> None:
    "All attempts of one run; how they ended, and what lay in the folder of checkpoints after each."
    ended = []
    for moment in [*case["killed"], None]:
        code = attempt(case, folder / name, moment)
        held = {path.name: (path / training.MARK).exists() for path in (folder / name).rglob("checkpoint-*")}
        ended.append({"code": code, "held": held, "card": (folder / name / "card.json").exists()})
    (folder / f"{name}.json").write_text(json.dumps(ended))


def main(folder: Path) -> None:
    cases, running = json.loads((folder / "cases.json").read_text()), 0
    for name, case in cases.items():
        if running == 2:
            os.wait()
            running -= 1
        running += 1
        if os.fork() == 0:
            try:
                run(name, case, folder)
            finally:
                os._exit(0)
    while running:
        os.wait()
        running -= 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
