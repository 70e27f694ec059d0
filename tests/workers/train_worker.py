"""One process of a run on several, started by torchrun: train_worker.py OUT FAILING RECIPE KEY=VALUE...

FAILING is the rank whose judge goes away at the second generation (-1: none). Each process writes what it ended with to
OUT.<rank>.json.
"""

import json
import os
import sys
from pathlib import Path

import speciarl.training.loop as training
import speciarl.training.reward
from speciarl.core.scale import UserError
from speciarl.training.recipe import load_recipe

out, failing, name, *changes = sys.argv[1:]
rank = int(os.environ["RANK"])
recipe = load_recipe(name, changes)
judge, asked = training.recipe_judge(recipe), []


def going_away(pairs, datasets=None):
    asked.append(len(pairs))
    if rank == int(failing) and len(asked) > 1:
        raise UserError("the judge does not answer: start it")
    return judge(pairs, datasets)


speciarl.training.reward.time.sleep = lambda seconds: None
going_away.identity = judge.identity
said = ""
try:
    training.train(recipe, out, judge=going_away)
except UserError as error:
    said = str(error)
Path(f"{out}.{rank}.json").write_text(json.dumps(said))
sys.exit(2 if said else 0)
