"""What an engine adds to a bare loop over transformers' `generate`, and what 64 answers about one image cost beside 64
single calls; on the packaged small policy.

    python benchmarks/rollout_speed.py [--images N] [--repeats N] [--out FILE]

Times are processor time of this process, one torch thread, best of the repeats, each kind in turn. The bare loop makes
the same batches with the same seeds, decodes the answers and does nothing else: no files, no checks. On a busy machine
the two differ by noise of some per cent either way, so what the engine does outside the draw is also measured by
itself. Nothing is written unless --out names a file for the printed text.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import torch

from speciarl.data.fieldguide import plates
from speciarl.policy import engines
from speciarl.policy.engines import Sampling, TransformersEngine, batch_seed, draw, read_once
from speciarl.policy.model import encode, load_policy, placeholders
from speciarl.policy.predict import predict
from speciarl.policy.prompts import load_prompt

LIMIT_OVERHEAD, LIMIT_SHARED = 0.03, 1 / 8
BATCH = 64  # answers


@torch.inference_mode()
def bare(policy, batches, prompt, how) -> list[str]:
    "The loop that one would write by hand."
    texts = []
    for batch in batches:
        inputs = encode(policy, batch, prompt)
        length = inputs["input_ids"].shape[1]
        inputs = read_once(policy, inputs, how.n) if how.n > 1 else inputs
        torch.manual_seed(batch_seed(how.seed, batch))
        warm = (
            dict(do_sample=False)
            if how.greedy
            else dict(do_sample=True, temperature=how.temperature, top_p=how.top_p, top_k=0)
        )
        output = policy.model.generate(
            **inputs,
            **warm,
            repetition_penalty=1.0,
            max_new_tokens=how.max_tokens,
            suppress_tokens=placeholders(policy),
        )
        texts += policy.processor.tokenizer.batch_decode(output[:, length:], skip_special_tokens=True)
    return texts


def best(repeats: int, *actions) -> list[float]:
    "Processor seconds of each action: the best of `repeats`, taken in turn so that a busy machine is busy for all."
    times = [[] for _ in actions]
    for _ in range(repeats):
        for kept, action in zip(times, actions):
            began = time.process_time()
            action()
            kept.append(time.process_time() - began)
    return [min(kept) for kept in times]


def overhead(policy, samples, prompt, how, repeats: int) -> str:
    "The engine beside the bare loop."
    size = max(1, BATCH // how.n)
    batches = [samples[i : i + size] for i in range(0, len(samples), size)]
    with tempfile.TemporaryDirectory() as folder:
        files = iter(Path(folder) / f"{i}.jsonl" for i in range(repeats + 1))
        rows = predict(TransformersEngine(policy, batch=BATCH), samples, prompt, how=how, out=next(files))
        assert [row["text"] for row in rows] == bare(policy, batches, prompt, how)
        loop, engine = best(
            repeats,
            lambda: bare(policy, batches, prompt, how),
            lambda: predict(TransformersEngine(policy, batch=BATCH), samples, prompt, how=how, out=next(files)),
        )
        outside = outside_the_draw(policy, samples, prompt, how, Path(folder) / "outside.jsonl")
    return (
        f"{how.n:3} answers for each of {len(samples)} images, batches of {BATCH}: loop {loop:6.2f} s, engine "
        f"{engine:6.2f} s ({engine / loop - 1:+.1%}); "
        f"outside the draw {outside:.1%} (limit {LIMIT_OVERHEAD:.0%})"
    )


def outside_the_draw(policy, samples, prompt, how, out: Path) -> float:
    """What the engine does besides drawing (opening pictures, checks, rows, files), as a share of the draw; free of
    the noise of two runs."""
    spent, real = [0.0], engines.draw

    def timed(*args):
        began = time.process_time()
        texts = real(*args)
        spent[0] += time.process_time() - began
        return texts

    engines.draw = timed
    began = time.process_time()
    predict(TransformersEngine(policy, batch=BATCH), samples, prompt, how=how, out=out)
    engines.draw = real
    return (time.process_time() - began) / spent[0] - 1


def sharing(policy, samples, prompt, repeats: int) -> list[str]:
    "64 answers about one image, three ways."
    one, how = samples[:1], Sampling(64, max_tokens=32)
    single = [Sampling(1, how.temperature, seed=i, max_tokens=32) for i in range(64)]
    alone, copied, shared = best(
        repeats,
        lambda: [draw(policy, one, prompt, each) for each in single],
        lambda: draw(policy, one, prompt, how, share=False),
        lambda: draw(policy, one, prompt, how),
    )
    return [
        f"64 single calls about one image {alone:.2f} s",
        f"one batch, the image copied 64 times {copied:.2f} s: 1/{alone / copied:.0f}",
        f"one batch, the image read once     {shared:.2f} s: 1/{alone / shared:.0f} (limit 1/{1 / LIMIT_SHARED:.0f})",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    policy, samples, prompt = (
        load_policy("fieldguide-base", device="cpu"),
        plates("birds", "test", args.images),
        load_prompt("general"),
    )
    lines = [
        f"$ python {' '.join(sys.argv)}",
        f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} at the start",
    ]
    lines += [
        overhead(policy, samples, prompt, Sampling(max_tokens=32), args.repeats),
        overhead(policy, samples[: args.images // 16], prompt, Sampling(64, max_tokens=32), args.repeats),
    ]
    lines += sharing(policy, samples, prompt, args.repeats)
    text = "\n".join([*lines, f"load {os.getloadavg()[0]:.1f} at the end"])
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
