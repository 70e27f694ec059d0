"Engines: the same rows from every engine, whatever fails, whenever it is killed, whichever family the model is of."

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from policy_server import expected, policy_server  # noqa: F401 - a fixture
from tiny_models import FAMILIES, save

from speciarl.core.scale import UserError, without_thoughts
from speciarl.data.fieldguide import plates
from speciarl.data.samples import Sample
from speciarl.data.trees import load_trees
from speciarl.judges.tree import TreeJudge
from speciarl.metrics.runs import evaluate, read_samples
from speciarl.policy import engines
from speciarl.policy.engines import Sampling, TransformersEngine, VLLMEngine, batch_seed, draw
from speciarl.policy.model import PACKAGED, encode, load_policy, placeholders
from speciarl.policy.predict import answered, predict, read_stream
from speciarl.policy.prompts import NEXT_ROUND, load_prompt, load_question
from speciarl.policy.server import EngineGone, ServerEngine, make_engine

ROOT = Path(__file__).parent.parent
PROMPT = load_prompt("general")


@pytest.fixture(scope="module")
def base():
    torch.set_num_threads(1)
    return load_policy("fieldguide-base", device="cpu")


@pytest.fixture(scope="module")
def samples():
    return plates("birds", "test", 7)


def pictures(count: int) -> list[Sample]:
    "Pictures of different sizes."
    dice = np.random.default_rng(0)
    return [
        Sample(
            f"p{i}",
            Image.fromarray(dice.integers(0, 256, (40 + 8 * i, 60 + 20 * (i % 3), 3), dtype=np.uint8)),
            "warbler",
            "birds",
        )
        for i in range(count)
    ]


def texts(rows: list[dict]) -> list[str]:
    return [row["text"] for row in rows]


# Sampling


@pytest.mark.parametrize(
    "given",
    [
        dict(n=0),
        dict(top_p=0.0),
        dict(top_p=1.1),
        dict(temperature=-1.0),
        dict(max_tokens=0),
        dict(temperature=float("nan")),
    ],
)
def test_sampling_that_makes_no_sense_is_refused(given):
    with pytest.raises(
        UserError, match="n and max_tokens must be at least 1, top_p in .0, 1., temperature at least 0$"
    ):
        Sampling(**given)


# Transformers


@pytest.fixture
def load(monkeypatch):
    "Loads tiny models; SmolVLM's processor wants a package that only videos need."
    import transformers.models.smolvlm.processing_smolvlm as smolvlm

    monkeypatch.setattr(smolvlm, "num2words", str)
    return lambda folder: load_policy(folder, device="cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_loaded_asked_and_saved_by_the_same_code(family, load, tmp_path):
    policy, asked = load(save(family, tmp_path / "made")), pictures(4)
    assert policy.model.config.model_type == family
    greedy = texts(
        predict(TransformersEngine(policy, batch=4), asked, "name what the image shows", how=Sampling(max_tokens=8))
    )
    with torch.no_grad():
        inputs = encode(policy, asked, "name what the image shows")
        output = policy.model.generate(
            **inputs, do_sample=False, max_new_tokens=8, suppress_tokens=placeholders(policy)
        )
    written = policy.processor.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], True)
    assert greedy == written, "transformers asked directly"
    with torch.no_grad():
        seen = [
            policy.model(**encode(policy, [sample], "name")).logits[0, -1]
            for sample in (asked[0], replace(asked[0], image=asked[0].image.rotate(180)))
        ]
    assert not torch.allclose(*seen, atol=1e-5), "it sees"
    again = load(policy.save(tmp_path / "again"))
    assert greedy == texts(
        predict(TransformersEngine(again, batch=4), asked, "name what the image shows", how=Sampling(max_tokens=8))
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_once_changes_no_answer(family, load, tmp_path):
    policy, asked = load(save(family, tmp_path)), pictures(3)
    cold = Sampling(5, temperature=1e-4, max_tokens=8)  # as good as greedy, but drawn
    shared = draw(policy, asked, "name what the image shows", cold)
    alone = draw(policy, asked, "name what the image shows", Sampling(max_tokens=8))
    assert shared == [5 * answer for answer in alone]


def test_half_precision_and_a_spread_model(tmp_path):
    policy = load_policy(save("gemma3", tmp_path), dtype=torch.bfloat16, device="auto")
    assert policy.model.dtype == torch.bfloat16
    assert len(predict(TransformersEngine(policy), pictures(2), "name the image", how=Sampling(2, max_tokens=4))) == 4


def test_a_beginning_is_not_written_twice(load, tmp_path):
    ids = encode(load(save("gemma3", tmp_path)), pictures(1), "name")["input_ids"][0].tolist()
    assert ids.count(2) == 2 and ids[:2] != [2, 2], "one <bos> for each turn of the template"


@pytest.fixture
def cramped(monkeypatch):
    "Memory for 12 answers."

    def short(policy, samples, prompt, how, first, n, share):
        if len(samples) * n > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return draw(policy, samples, prompt, how, first, n, share)

    monkeypatch.setattr(engines, "draw", short)


@pytest.mark.parametrize(("n", "batch", "limit"), [(4, 28, 14), (32, 32, 8)])
def test_out_of_memory_halves_the_batch_and_says_so(base, samples, cramped, tmp_path, caplog, n, batch, limit):
    how, path = Sampling(n, max_tokens=8), tmp_path / "p.jsonl"
    rows = predict(TransformersEngine(base, batch=batch), samples, PROMPT, how=how, out=path)
    assert [row["rollout"] for row in rows] == list(range(n)) * 7 and {row["limit"] for row in rows} == {limit}

    def told():
        return [message for message in caplog.messages if "memory" in message]

    assert told()[-1] == f"out of memory with {2 * limit} answers at once; going on with {limit}"
    whole, count = path.read_bytes(), len(told())
    path.write_bytes(whole[: len(whole) * 2 // 3])
    predict(TransformersEngine(base, batch=batch), samples, PROMPT, how=how, out=path)
    assert path.read_bytes() == whole
    assert n == 4 or len(told()) == count, "a resumed run knows the limit"


def test_a_single_answer_that_does_not_fit_ends_the_run(base, samples, monkeypatch):
    def never(*args):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(engines, "draw", never)
    with pytest.raises(
        UserError,
        match="^out of memory with a single answer; use a smaller model, bfloat16, device auto, or smaller pictures "
        r"\(--max-pixels\)$",
    ):
        predict(TransformersEngine(base), samples, PROMPT)


@pytest.fixture
def giant(monkeypatch, samples):
    "No memory for the third picture, whatever is done; which is a list, to be emptied for more memory."
    large = [samples[2].id]

    def short(policy, asked, prompt, how, first, n, share):
        if any(sample.id in large for sample in asked):
            raise torch.OutOfMemoryError
        return draw(policy, asked, prompt, how, first, n, share)

    monkeypatch.setattr(engines, "draw", short)
    return large


@pytest.mark.parametrize("n, batch", [(1, 64), (4, 8), (4, 4)])
def test_one_picture_that_does_not_fit_ends_no_run(base, samples, giant, tmp_path, caplog, n, batch):
    how, path = Sampling(n, max_tokens=8), tmp_path / "p.jsonl"
    good, lost = answered(predict(TransformersEngine(base, batch=batch), samples, PROMPT, how=how, out=path))
    said = f"{samples[2].id}: out of memory even alone; use a smaller model, bfloat16, device auto, or smaller pictures"
    assert list(lost) == [samples[2].id] and lost[samples[2].id] == f"memory: {said} (--max-pixels)"
    assert len(good) == n * (len(samples) - 1) and "limit" not in good[-1], "the others are drawn as before"
    assert [line for line in caplog.messages if said in line and line.endswith("the picture is left out")]
    size = batch // n
    beside = [sample for sample in samples[2 - 2 % size :][:size] if sample.id not in giant]
    if beside:
        expected = draw(base, beside, PROMPT, how)
        assert [row["text"] for row in good if row["sample_id"] == beside[-1].id] == expected[-1]
    giant.clear()
    rows = predict(TransformersEngine(base, batch=batch), samples, PROMPT, how=how, out=path)
    assert rows == predict(TransformersEngine(base, batch=batch), samples, PROMPT, how=how), (
        "with more memory, asked again"
    )


def test_a_run_counts_the_picture_that_does_not_fit(base, samples, giant, tmp_path):
    judge = TreeJudge(load_trees(["birds"]), strict=True)
    card = evaluate(TransformersEngine(base), samples, tmp_path / "run", judge, how=Sampling(max_tokens=8))
    assert (card["counts"]["answers"], card["counts"]["unanswered"]) == (len(samples) - 1, 1)
    assert [row["fault"] for row in read_samples(tmp_path / "run") if row["fault"]][0].startswith("memory: ")


def test_the_first_pictures_do_not_stand_for_all(base, samples, giant):
    giant[:] = [sample.id for sample in samples[:4]]
    good, lost = answered(predict(TransformersEngine(base), samples, PROMPT, how=Sampling(max_tokens=8)))
    assert list(lost) == giant and [row["sample_id"] for row in good] == [sample.id for sample in samples[4:]]


def test_where_no_picture_fits_the_run_stops_whatever_the_batch(base, samples, giant):
    giant += [sample.id for sample in samples]
    for batch in (1, 2, 64):
        with pytest.raises(UserError, match="^out of memory with a single answer; use a smaller model"):
            predict(TransformersEngine(base, batch=batch), samples, PROMPT)


def test_other_errors_pass(base, samples, monkeypatch):
    def wrong(*args):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(engines, "draw", wrong)
    with pytest.raises(RuntimeError, match="shapes differ"):
        predict(TransformersEngine(base), samples, PROMPT)


# Pictures


def test_pictures_of_every_kind_are_asked_about(base, tmp_path):
    dice = np.random.default_rng(0)
    colour = Image.fromarray(dice.integers(0, 256, (60, 90, 3), dtype=np.uint8))
    colour.convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(dice.integers(0, 65536, (60, 90), dtype=np.uint16)).save(tmp_path / "deep.png")
    colour.convert("P").save(tmp_path / "palette.png")
    colour.save(tmp_path / "moving.gif", save_all=True, append_images=[colour.rotate(90)])
    exif = Image.Exif()
    exif[0x0112] = 6
    colour.save(tmp_path / "lying.jpg", exif=exif)
    Image.new("RGB", (1, 1), "red").save(tmp_path / "dot.png")
    colour.resize((4000, 20)).save(tmp_path / "wide.png")
    colour.resize((20, 4000)).save(tmp_path / "high.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "palette.png").read_bytes()[:300])
    (tmp_path / "empty.jpg").write_bytes(b"")
    asked = [Sample(path.name, path, "warbler") for path in sorted(tmp_path.iterdir())]
    good, lost = answered(predict(TransformersEngine(base, batch=4), asked, PROMPT, how=Sampling(2, max_tokens=4)))
    assert set(lost) == {"half.png", "empty.jpg"} | {row for row in lost if row in ("wide.png", "high.png")}
    assert lost["empty.jpg"] == f"{tmp_path / 'empty.jpg'}: the image is empty (0 bytes); replace the file"
    assert len(good) == 2 * (len(asked) - len(lost)) and len(lost) == 2


def test_an_unreadable_picture_is_a_row_and_stays_one(base, samples, tmp_path):
    asked = [*samples[:2], replace(samples[2], image=tmp_path / "absent.jpg"), *samples[3:]]
    rows = predict(
        TransformersEngine(base, batch=3), asked, PROMPT, out=tmp_path / "p.jsonl", how=Sampling(max_tokens=16)
    )
    assert [row["sample_id"] for row in rows] == [sample.id for sample in asked]
    assert rows[2] == {
        **rows[2],
        "answer": None,
        "text": "",
        "error": f"{tmp_path / 'absent.jpg'}: no such image; check the path",
    }
    assert (
        predict(TransformersEngine(base, batch=3), asked, PROMPT, out=tmp_path / "p.jsonl", how=Sampling(max_tokens=16))
        == rows
    )
    assert all(row["answer"] for row in answered(rows)[0]) and len(answered(rows)[1]) == 1


def test_a_batch_of_unreadable_pictures(base, samples, tmp_path):
    asked = [replace(sample, image=tmp_path / "absent.jpg") for sample in samples]
    assert len(answered(predict(TransformersEngine(base), asked, PROMPT))[1]) == 7


# Files


def test_predictions_of_something_else_are_refused_and_kept(base, samples, tmp_path):
    path = tmp_path / "p.jsonl"
    predict(TransformersEngine(base), samples, PROMPT, out=path, how=Sampling(2, max_tokens=4))
    before = path.read_bytes()
    for other, name, n in (
        (plates("pets", "test", 3), "general", 2),
        (samples, "specific", 2),
        (samples, "general", 1),
    ):
        with pytest.raises(
            UserError,
            match="holds predictions of another data set, prompt or number of answers; choose another folder$",
        ):
            predict(TransformersEngine(base), other, PROMPT, name, Sampling(n, max_tokens=4), path)
    assert path.read_bytes() == before


def test_two_samples_of_one_name_are_refused(base, samples):
    with pytest.raises(UserError, match="^two samples have the same id"):
        predict(TransformersEngine(base), [samples[0], samples[0]], PROMPT)


def test_the_whole_text_is_the_answer_where_the_prompt_names_no_tag(base, samples):
    rows = predict(TransformersEngine(base), samples[:1], PROMPT, "openworld/base", Sampling(max_tokens=16), tag=None)
    thought, answer = rows[0]["text"].split("</think>")
    assert thought.startswith("<think>") and rows[0]["answer"] == answer.strip() != "", "a thought is no answer"


def test_progress_is_shown_if_asked_for(base, samples, capsys):
    predict(TransformersEngine(base), samples, PROMPT, how=Sampling(max_tokens=4), quiet=False)
    assert "7/7" in capsys.readouterr().err


RUN = """
import sys, torch
from speciarl.data.fieldguide import plates
from speciarl.policy.engines import Sampling, TransformersEngine
from speciarl.policy.model import load_policy
from speciarl.policy.predict import predict
torch.set_num_threads(1)
predict(TransformersEngine(load_policy("fieldguide-base", device="cpu"), batch=8), plates("birds", "test", 40),
        "name what the image shows", how=Sampling(4, max_tokens=16), out=sys.argv[1])
"""


def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path):
    subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "whole.jsonl")], check=True, cwd=ROOT, capture_output=True
    )
    path = tmp_path / "killed.jsonl"
    for lines in (1, 60, 110):
        child = subprocess.Popen(
            [sys.executable, "-c", RUN, str(path)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while child.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < lines):
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    subprocess.run([sys.executable, "-c", RUN, str(path)], check=True, cwd=ROOT, capture_output=True)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


# A server


def server(handle, **more) -> ServerEngine:
    return ServerEngine(
        "policy", handle.url, **{"api_key": "s3cret", "retries": 1, "concurrency": 4, "give_up_after": 4, **more}
    )


def told(asked: list[Sample], how: Sampling) -> list[str]:
    "What the server should have written."
    return [
        text
        for sample in asked
        for text in expected(sample.image, PROMPT, 0 if how.greedy else batch_seed(how.seed, [sample]), how.n)
    ]


@pytest.mark.parametrize("how", [Sampling(), Sampling(3), Sampling(1, 0.6, seed=5)])
def test_every_answer_goes_to_its_picture(policy_server, tmp_path, how):
    asked = pictures(12)
    rows = predict(server(policy_server), asked, PROMPT, how=how, out=tmp_path / "p.jsonl")
    assert texts(rows) == told(asked, how) and rows == read_stream(tmp_path / "p.jsonl")
    assert policy_server.calls == 12 and policy_server.most <= 4


@pytest.mark.parametrize("how", [Sampling(), Sampling(2)])
def test_in_rounds_each_answer_has_its_own_talk(policy_server, tmp_path, how):
    "Every round repeats what was said before; the last answer is the one that counts."
    asked, rounds = pictures(5), ["What is this?", "Is it small?", "So?"]
    rows = predict(server(policy_server), asked, NEXT_ROUND.join(rounds), "talk", how, tmp_path / "p.jsonl", tag=None)
    found = []
    for sample in asked:
        seeds = (
            [0] * how.n
            if how.greedy
            else [batch_seed(how.seed, [replace(sample, id=f"{sample.id}#{i}")]) for i in range(how.n)]
        )
        for i, answer in enumerate(
            expected(sample.image, rounds[0], 0 if how.greedy else batch_seed(how.seed, [sample]), how.n)
        ):
            said = [rounds[0], answer]
            for question in rounds[1:]:
                said += [question, *expected(sample.image, " | ".join([*said, question]), seeds[i])]
            found.append(said[-1])
    assert texts(rows) == found and rows == read_stream(tmp_path / "p.jsonl")


def test_a_talk_that_breaks_off_is_one_error_and_is_begun_again(policy_server, tmp_path):
    asked, talk = pictures(3), NEXT_ROUND.join(["What is this?", "So?"])
    policy_server.script = ["", "", "", "none"]
    rows = predict(server(policy_server, concurrency=1), asked, talk, out=tmp_path / "p.jsonl", tag=None)
    assert ["error" in row for row in rows] == [True, False, False]
    assert not any(
        "error" in row for row in predict(server(policy_server), asked, talk, out=tmp_path / "p.jsonl", tag=None)
    )


def test_the_four_rounds_of_the_protocol(base, samples, tmp_path):
    question = load_question("openworld/llamav_o1")
    assert len(question.text.split(NEXT_ROUND)) == 4 and question.tag is None and question.max_tokens == 256
    rows = predict(
        TransformersEngine(base),
        [*samples[:2], replace(samples[2], image=tmp_path / "none.png")],
        question.text,
        question.name,
        Sampling(max_tokens=8),
        tag=question.tag,
    )
    assert [bool(row.get("error")) for row in rows] == [False, False, True] and all(
        row["answer"] == without_thoughts(row["text"]).strip() for row in rows[:2]
    )


def test_a_server_that_gives_one_answer_whatever_it_is_asked(policy_server):
    policy_server.ignores_n = True
    asked = pictures(2)
    assert texts(predict(server(policy_server), asked, PROMPT, how=Sampling(3))) == told(asked, Sampling(3))


def test_faults_that_pass_are_tried_again(policy_server):
    policy_server.script = [500, 429, 503]
    asked = pictures(6)
    patient = server(policy_server, concurrency=3, retries=3)  # the first call is made alone and meets all three
    assert texts(predict(patient, asked, PROMPT)) == told(asked, Sampling())


def test_a_server_that_goes_away_leaves_everything_answered_and_resumes(policy_server, tmp_path):
    asked, path = pictures(20), tmp_path / "p.jsonl"
    policy_server.gone_after = 7
    with pytest.raises(EngineGone) as error:
        predict(server(policy_server), asked, PROMPT, how=Sampling(2), out=path)
    assert (
        str(error.value)
        == f"the server at {policy_server.url} is gone (status 503: shutting down); what was answered is kept; start "
        "the server and run again"
    )
    kept = [row for row in read_stream(path) if "error" not in row]
    assert 14 <= len(kept) <= 2 * policy_server.answers
    policy_server.gone_after, policy_server.calls = None, 0
    rows = predict(server(policy_server), asked, PROMPT, how=Sampling(2), out=path)
    assert (
        policy_server.calls == 20 - len(kept) / 2
        and texts(rows) == told(asked, Sampling(2))
        and rows == read_stream(path)
    )


def test_a_picture_the_server_refuses_is_asked_about_again_later(policy_server, tmp_path):
    asked, path = pictures(9), tmp_path / "p.jsonl"
    policy_server.refuse_width = 80
    rows = predict(server(policy_server, concurrency=1), asked, PROMPT, out=path)
    assert [row["error"] for row in rows if "error" in row] == 3 * [
        "server: 400: the picture is too small for this model"
    ]
    policy_server.refuse_width, policy_server.calls = None, 0
    assert (
        texts(predict(server(policy_server), asked, PROMPT, out=path)) == told(asked, Sampling())
        and policy_server.calls == 3
    )


@pytest.mark.parametrize("fault", ["text", "none"])
def test_a_reply_that_is_no_completion_is_no_answer(policy_server, fault):
    policy_server.script = ["", fault]
    rows = predict(server(policy_server, concurrency=1), pictures(4), PROMPT)
    assert ["error" in row for row in rows] == [False, True, False, False] and rows[1]["error"].startswith(
        "server: the server's reply is "
    )


def test_what_is_wrong_for_every_picture_stops_the_run(policy_server):
    policy_server.key = "another"
    with pytest.raises(UserError, match="refused the request .401: wrong key.; check the API key$"):
        predict(server(policy_server), pictures(3), PROMPT)
    with pytest.raises(UserError, match="^the server has no model 'polcy'; it has policy$"):
        predict(ServerEngine("polcy", policy_server.url, api_key="another"), pictures(1), PROMPT)
    policy_server.key = None
    with pytest.raises(EngineGone, match="400: unknown field best_of"):
        predict(server(policy_server, extra={"best_of": 3}), pictures(9), PROMPT)


def test_no_server_at_all(tmp_path):
    with pytest.raises(EngineGone, match="^the server at http://127.0.0.1:9/v1 is gone .connection failed: "):
        predict(ServerEngine("policy", "http://127.0.0.1:9", retries=0, give_up_after=1), pictures(1), PROMPT)


def test_the_key_is_nowhere(policy_server):
    engine = server(policy_server)
    assert "s3cret" not in f"{engine!r} {engine.describe()} {vars(engine)}"


def test_an_unreadable_picture_is_not_sent(policy_server, tmp_path):
    asked = [*pictures(2), Sample("gone", tmp_path / "gone.png", "dog")]
    rows = predict(server(policy_server), asked, PROMPT, how=Sampling(2))
    assert policy_server.calls == 2 and rows[-1]["error"] == f"{tmp_path / 'gone.png'}: no such image; check the path"


# vLLM, played by a module that takes what vLLM 0.31 takes


@pytest.fixture
def vllm(monkeypatch):
    made = SimpleNamespace(engine=None, asked=[], finish_reason="stop")

    class SamplingParams:
        def __init__(self, *, n, temperature, top_p, repetition_penalty, max_tokens, seed):
            self.n, self.seed, self.said = (
                n,
                seed,
                dict(
                    n=n,
                    temperature=temperature,
                    top_p=top_p,
                    repetition_penalty=repetition_penalty,
                    max_tokens=max_tokens,
                ),
            )

    class LLM:
        def __init__(self, *, model, enable_prefix_caching, generation_config, limit_mm_per_prompt, **more):
            made.engine = dict(model=model, generation_config=generation_config, prefix=enable_prefix_caching, **more)

        def chat(self, messages, sampling_params, use_tqdm, lora_request=None):
            made.asked.append(len(messages))
            made.params, made.lora = sampling_params[-1], lora_request
            return [
                SimpleNamespace(
                    outputs=[
                        SimpleNamespace(index=i, text=text, finish_reason=made.finish_reason)
                        for i, text in reversed(
                            list(
                                enumerate(
                                    expected(
                                        chat[0]["content"][0]["image_pil"],
                                        chat[0]["content"][1]["text"],
                                        params.seed,
                                        params.n,
                                    )
                                )
                            )
                        )
                    ]
                )
                for chat, params in zip(messages, sampling_params, strict=True)
            ]

    package, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    package.LLM, package.SamplingParams, package.__version__ = LLM, SamplingParams, "0.31.0"
    request.LoRARequest = lambda name, number, path: (name, number, path)
    for module in (package, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


def test_vllm_is_asked_in_portions_with_a_seed_for_each_sample(vllm, tmp_path):
    asked, how = pictures(7), Sampling(4, seed=3)
    engine = VLLMEngine("fieldguide-base", batch=12, max_model_len=512)
    rows = predict(engine, asked, PROMPT, how=how, out=tmp_path / "p.jsonl")
    assert vllm.asked == [3, 3, 1] and texts(rows) == told(asked, how)
    assert vllm.engine == dict(
        model=str(PACKAGED["fieldguide-base"]), generation_config="vllm", prefix=True, max_model_len=512
    )
    assert (
        vllm.params.said == dict(n=4, temperature=0.6, top_p=0.95, repetition_penalty=1.0, max_tokens=64)
        and vllm.lora is None
    )
    assert engine.describe()["version"] == "0.31.0"


@pytest.mark.parametrize("reason", ["stop", "length", "abort"])
def test_vllm_says_why_an_answer_ended(vllm, caplog, reason):
    vllm.finish_reason = reason
    rows = predict(VLLMEngine("fieldguide-base"), pictures(3), PROMPT, how=Sampling(2))
    assert [row["finish_reason"] for row in rows] == [reason] * 6
    assert ("6 of 6 answers (100.0%) were cut off" in caplog.text) == (reason == "length")


def test_vllm_resumes_by_the_sample(vllm, tmp_path):
    asked, path = pictures(7), tmp_path / "p.jsonl"
    whole = predict(VLLMEngine("fieldguide-base"), asked, PROMPT, how=Sampling(2), out=path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    vllm.asked.clear()
    assert predict(VLLMEngine("fieldguide-base"), asked, PROMPT, how=Sampling(2), out=path) == whole and vllm.asked == [
        5
    ]


def test_vllm_takes_an_adapter_beside_its_base(vllm, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 12, "base_model_name_or_path": "fieldguide-base"}))
    predict(VLLMEngine(tmp_path), pictures(1), PROMPT)
    assert (
        vllm.engine["enable_lora"]
        and vllm.engine["max_lora_rank"] == 16
        and vllm.engine["model"] == str(PACKAGED["fieldguide-base"])
    )
    assert vllm.lora == ("adapter", 1, str(tmp_path))


def test_without_vllm_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(
        UserError,
        match=r"^engine vllm needs the package vllm: pip install 'speciarl\[vllm\]', or use engine transformers or "
        r"openai$",
    ):
        make_engine("vllm", "fieldguide-base")
