"""One process of a TAPO run in test_tapo_faults.py: tapo_worker.py OUT DIES RECIPE KEY=VALUE...

DIES is the step at whose end the process is killed with SIGKILL, before its checkpoint is marked as whole (0: it is
left to end).
"""

import os
import signal
import sys

import speciarl.training.loop as training
from speciarl.fine_r1.tapo import TAPO
from speciarl.training.recipe import load_recipe

out, dies, name, *changes = sys.argv[1:]
plain = training.Checkpoints.on_save


def on_save(self, args, state, *others, **more):
    if state.global_step == int(dies):
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, args, state, *others, **more)


training.Checkpoints.on_save = on_save
training.train(load_recipe(name, changes), out, way=TAPO)
