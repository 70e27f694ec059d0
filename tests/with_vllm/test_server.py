"""`ServerEngine` and the real vLLM agree on pictures: the small policy behind `vllm serve` says what it says in this
process."""

import pytest
from PIL import Image

from speciarl.core.scale import UserError
from speciarl.data.fieldguide import plates
from speciarl.data.samples import Sample
from speciarl.policy.engines import Sampling, TransformersEngine
from speciarl.policy.model import load_policy
from speciarl.policy.predict import predict
from speciarl.policy.prompts import load_prompt
from speciarl.policy.server import EngineGone, ServerEngine

PROMPT, GREEDY, MANY = load_prompt("general"), Sampling(max_tokens=24), Sampling(8, temperature=1.0, max_tokens=24)


@pytest.fixture(scope="module")
def samples():
    return plates("birds", "test", 12)


@pytest.fixture(scope="module")
def here(samples):
    "The greedy answers of transformers."
    return answers(
        predict(TransformersEngine(load_policy("fieldguide-base", device="cpu")), samples, PROMPT, how=GREEDY)
    )


@pytest.fixture
def make(policy_server):
    "An engine that asks the server."
    return lambda model="policy", **options: ServerEngine(model, policy_server.url, **options)


def answers(rows: list[dict]) -> list[str | None]:
    return [row["answer"] for row in rows]


def test_greedy_answers_are_those_of_transformers(make, samples, here, tmp_path):
    rows = predict(make(), samples, PROMPT, how=GREEDY, out=tmp_path / "predictions.jsonl")
    assert [row["sample_id"] for row in rows] == [sample.id for sample in samples]
    assert sum(a == b for a, b in zip(answers(rows), here, strict=True)) >= 11, "rounding may turn one of twelve"
    assert len(set(answers(rows))) > 1, "it sees the pictures"


def test_samples_differ_and_come_again(make, samples):
    many, again = (answers(predict(make(), samples, PROMPT, how=MANY)) for _ in range(2))
    assert len(many) == 96 and any(len(set(many[i : i + 8])) > 1 for i in range(0, 96, 8))
    assert sum(a == b for a, b in zip(many, again)) >= 92, "seeds are honoured; what shares a batch may turn a few"


def test_a_picture_that_is_refused_and_one_that_cannot_be_read_are_told_and_the_rest_is_answered(
    make, samples, here, tmp_path
):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    odd = [
        Sample("large", Image.new("RGB", (1600, 1600), "olive"), "bird"),
        Sample("strip", Image.new("RGB", (3000, 10), "olive"), "bird"),
        Sample("broken", tmp_path / "broken.png", "bird"),
    ]
    rows = {row["sample_id"]: row for row in predict(make(), [*odd, *samples[:4]], PROMPT, how=GREEDY)}
    print(rows["strip"]["error"])
    assert (
        rows["strip"]["error"].startswith("server: 400: ")
        and "3000x10" in rows["strip"]["error"]
        and "\n" not in rows["strip"]["error"]
    )
    assert rows["broken"]["error"].endswith(
        "broken.png: the image is corrupt, truncated or of another format; replace or remove it"
    )
    assert rows["large"]["text"], "the server's processor makes it smaller"
    assert sum(rows[sample.id]["answer"] == said for sample, said in zip(samples[:4], here)) >= 3


def test_an_unknown_model_is_told_with_the_one_there_is(make, samples):
    with pytest.raises(UserError, match="^the server has no model 'other'; it has policy$"):
        predict(make("other"), samples, PROMPT)


def test_a_server_killed_in_the_middle_stops_the_run_and_the_next_one_completes(make, policy_server, tmp_path):
    many, path = plates("birds", "test", 200), tmp_path / "predictions.jsonl"
    engine, asked = make(retries=1, give_up_after=4, concurrency=4), []

    class Cut:
        "The engine, whose server is killed after forty pictures."

        together, batch, limit = engine.together, engine.batch, engine.limit

        def ask(self, *args):
            for found in engine.ask(*args):
                asked.append(found)
                if len(asked) == 40:
                    policy_server.kill()
                yield found

    with pytest.raises(EngineGone, match="what was answered is kept; start the server and run again$"):
        predict(Cut(), many, PROMPT, how=GREEDY, out=path)
    kept = sum('"error"' not in line for line in path.read_text().splitlines())
    assert 40 <= kept < 200
    policy_server.start()
    policy_server.wait()
    rows = predict(make(), many, PROMPT, how=GREEDY, out=path)
    assert len(rows) == 200 and not any("error" in row for row in rows)
    print(f"{kept} of 200 were answered before the server died, and kept")
