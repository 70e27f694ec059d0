"One bad picture, of any kind, is named and counted, and the rest of the run goes on; what a message advises helps."

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin  # noqa: F401 - the plugin is needed to write TIFF
from policy_server import policy_server  # noqa: F401 - a fixture
from test_data import png
from tiny_models import FAMILIES, save

from speciarl.core.files import read_json
from speciarl.core.scale import UserError
from speciarl.data.samples import LEAST_SIDE, MOST_STRETCHED, Sample, fitted, open_image, readable
from speciarl.policy import model
from speciarl.policy.engines import Sampling, TransformersEngine, VLLMEngine, opened
from speciarl.policy.model import load_policy, processed
from speciarl.policy.predict import answered, predict
from speciarl.policy.prompts import SEEN_PIXELS, picture_of
from speciarl.policy.server import ServerEngine, make_engine

WORDS, SHORT = "name what the image shows", Sampling(max_tokens=2)
DICE = np.random.default_rng(0)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(DICE.integers(0, 256, (height, width, 3), dtype=np.uint8))


ODD = [(1200, 5), (5, 1200), (1, 1), (2, 1), (50, 3), (3, 50), (199, 1), (20_000, 20), (20, 20_000), (30_000, 40)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    torch.set_num_threads(1)
    return load_policy(save("qwen2_5_vl", tmp_path_factory.mktemp("tiny")), device="cpu")


def folder_of_all_kinds(folder: Path) -> tuple[list[Sample], set[str]]:
    "Pictures of every kind, and the names of those that nobody can open."
    good = noise(60, 40)
    for width, height in ODD:
        noise(width, height).save(folder / f"{width}x{height}.png")
    good.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(DICE.integers(0, 65536, (40, 60), dtype=np.uint16)).save(folder / "deep.png")
    good.convert("P").save(folder / "palette.png")
    for name in ("moving.gif", "moving.webp", "moving.png"):
        good.save(folder / name, save_all=True, append_images=[noise(60, 40)])
    exif = Image.Exif()
    exif[0x0112] = 6
    good.save(folder / "lying.jpg", exif=exif)
    bad = {
        "half.png": (folder / "palette.png").read_bytes()[:500],
        "empty.jpg": b"",
        "text.jpg": b"I am a picture",
        "bomb.png": png(50_000, 50_000),
    }
    for name, data in bad.items():
        (folder / name).write_bytes(data)
    return [Sample(path.name, path, "warbler") for path in sorted(folder.iterdir())], set(bad)


# -- the rule


@pytest.mark.parametrize("size", ODD)
def test_every_picture_becomes_one_that_processors_take(size):
    picture = noise(*size)
    made = fitted(picture)
    assert max(made.size) <= MOST_STRETCHED * min(made.size) and min(made.size) >= LEAST_SIDE
    assert (made.width > made.height) == (size[0] > size[1])
    assert fitted(made) is made, "once is enough"


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (4, 400), (640, 480), (56, 56)])
def test_usual_pictures_are_left_as_they_are(size):
    picture = noise(*size)
    assert fitted(picture) is picture


def test_a_strip_lies_in_the_middle_of_white():
    strip = noise(1200, 6)
    made = np.asarray(fitted(strip))
    assert made.shape == (12, 1200, 3) and (made[3:9] == np.asarray(strip)).all()
    assert (made[:3] == 255).all() and (made[9:] == 255).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_refuses_an_odd_picture(family, tmp_path, monkeypatch):
    import transformers.models.smolvlm.processing_smolvlm as smolvlm

    monkeypatch.setattr(smolvlm, "num2words", str)
    policy = load_policy(save(family, tmp_path), device="cpu")
    for size in ODD:
        read = processed(policy, [Sample("odd", noise(*size), "dog")], WORDS)
        assert read["input_ids"].shape[0] == 1 and read["pixel_values"].isfinite().all()


# -- transformers


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_pictures_of_every_kind_end_no_run(tiny, tmp_path, batch):
    asked, bad = folder_of_all_kinds(tmp_path)
    good, lost = answered(predict(TransformersEngine(tiny, batch=batch), asked, WORDS, how=SHORT))
    assert set(lost) == bad and len(good) == len(asked) - len(bad)
    assert all(str(tmp_path / name) in error for name, error in lost.items())


def stubborn(policy, samples, prompt):
    "A processor that does not take pictures of the colour red."
    if any(np.asarray(open_image(sample))[0, 0].tolist() == [255, 0, 0] for sample in samples):
        raise ValueError("unsupported picture")
    return processed(policy, samples, prompt)


def test_what_the_processor_refuses_is_named_and_the_batch_goes_on(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "processed", stubborn)
    asked = [Sample(f"p{i}", noise(60, 40), "dog") for i in range(5)]
    Image.new("RGB", (60, 40), "red").save(tmp_path / "red.png")
    asked[2] = replace(asked[2], image=tmp_path / "red.png")
    out = tmp_path / "p.jsonl"
    rows = predict(TransformersEngine(tiny, batch=3), asked, WORDS, how=SHORT, out=out)
    [error] = [row["error"] for row in rows if "error" in row]
    what = "the model's processor does not take this picture (unsupported picture); replace the file"
    assert error == f"{tmp_path / 'red.png'}: {what}" and len(answered(rows)[0]) == 4
    assert predict(TransformersEngine(tiny, batch=3), asked, WORDS, how=SHORT, out=out) == rows
    Image.new("RGB", (60, 40), "blue").save(tmp_path / "red.png")  # as advised
    rows = predict(TransformersEngine(tiny, batch=3), asked, WORDS, how=SHORT, out=out)
    assert not answered(rows)[1]


def test_an_error_that_is_no_picture_s_fault_is_raised(tiny, monkeypatch):
    def broken(**inputs):
        raise ValueError("no such option")

    monkeypatch.setattr(tiny.model, "generate", broken)
    with pytest.raises(ValueError, match="no such option"):
        predict(TransformersEngine(tiny), [Sample("p", noise(60, 40), "dog")], WORDS, how=SHORT)


def test_vllm_refuses_a_batch_for_one_picture_and_the_others_are_answered():
    class Model:
        "Refuses every batch that holds a red picture, as vLLM does."

        def chat(self, chats, params, use_tqdm):
            seen = [chat[0]["content"][0]["image_pil"].getpixel((0, 0)) for chat in chats]
            if (255, 0, 0) in seen:
                raise ValueError("Failed to apply the processor")
            ends = [SimpleNamespace(index=0, text=str(pixel), finish_reason="stop") for pixel in seen]
            return [SimpleNamespace(outputs=[end]) for end in ends]

    engine = VLLMEngine.__new__(VLLMEngine)  # vLLM itself is not installed
    engine.llm, engine._lora, engine._params = Model(), {}, SimpleNamespace
    engine.batch, engine.max_pixels = 512, SEEN_PIXELS
    asked = [Sample(f"p{i}", Image.new("RGB", (60, 40), (i, 9, 9)), "dog") for i in range(7)]
    asked[4] = replace(asked[4], image=Image.new("RGB", (60, 40), "red"))
    found = dict(engine.ask(asked, WORDS, Sampling()))
    what = "the model's processor does not take this picture (Failed to apply the processor); replace the file"
    assert str(found.pop(4)) == f"p4: {what}" and found == {i: [str((i, 9, 9))] for i in range(7) if i != 4}


# -- advice


def mended(path: Path, fault: str) -> None:
    "Do what the message says."
    if "make it smaller" in fault:
        noise(90, 60).save(path)
    elif "save it with 8 bits per channel" in fault:
        with Image.open(path) as image:
            image.convert("L").save(path)
    else:
        assert fault.endswith(("replace the file", "check the path")), fault
        noise(60, 40).save(path, "PNG")


@pytest.mark.parametrize(
    "name, data",
    [
        ("empty.jpg", b""),
        ("text.jpg", b"I am a picture"),
        ("bomb.png", png(50_000, 50_000)),
        ("deep.tif", None),
        ("absent.png", None),
    ],
)
def test_the_advice_of_a_message_helps(tiny, tmp_path, name, data):
    path, out = tmp_path / name, tmp_path / "p.jsonl"
    if data is not None:
        path.write_bytes(data)
    elif name == "deep.tif":
        Image.new("F", (20, 20), 0.5).save(path)
    asked = [Sample("first", noise(60, 40), "dog"), Sample(name, path, "dog")]
    lost = answered(predict(TransformersEngine(tiny), asked, WORDS, how=SHORT, out=out))[1]
    assert lost[name].startswith(f"{path}: ")
    mended(path, lost[name])
    rows = predict(TransformersEngine(tiny), asked, WORDS, how=SHORT, out=out)
    assert not answered(rows)[1] and len(rows) == 2
    assert rows == predict(TransformersEngine(tiny), asked, WORDS, how=SHORT)


def test_a_picture_in_memory_is_named_by_its_sample():
    with pytest.raises(UserError, match="^plate 7: pixels of 32 bits; save it with 8 bits per channel$"):
        open_image(Sample("plate 7", Image.new("F", (4, 4)), "dog"))


# -- a server


def test_a_server_refuses_a_whole_folder_of_pictures_and_answers_the_rest(policy_server, tmp_path):
    policy_server.refuse_width = 80
    asked = [Sample(f"p{i:02}", noise(80 if 4 <= i < 40 else 60, 40), "dog") for i in range(50)]
    engine = ServerEngine("policy", policy_server.url, api_key="", concurrency=1, give_up_after=4)
    rows = predict(engine, asked, WORDS, out=tmp_path / "p.jsonl")
    good, lost = answered(rows)
    assert len(good) == 14 and set(lost) == {f"p{i:02}" for i in range(4, 40)}
    assert set(lost.values()) == {"server: 400: the picture is too small for this model"}


def test_what_failed_before_waits_behind_the_rest(policy_server, tmp_path):
    "Otherwise the pictures that stopped one run would stop every run after it, at the same place."
    policy_server.refuse_width = 80
    asked = [Sample(f"p{i:02}", noise(80 if i < 10 else 60, 40), "dog") for i in range(30)]
    engine = ServerEngine("policy", policy_server.url, api_key="", concurrency=1, give_up_after=4)
    with pytest.raises(UserError, match="400: the picture is too small for this model"):
        predict(engine, asked, WORDS, out=tmp_path / "p.jsonl")
    with pytest.raises(UserError):
        predict(engine, asked, WORDS, out=tmp_path / "p.jsonl")  # the next four
    with pytest.raises(UserError):
        predict(engine, asked, WORDS, out=tmp_path / "p.jsonl")  # and the next
    good, lost = answered(predict(engine, asked, WORDS, out=tmp_path / "p.jsonl"))
    assert len(good) == 20 and len(lost) == 10


def test_pictures_of_every_kind_reach_a_server(policy_server, tmp_path):
    asked, bad = folder_of_all_kinds(tmp_path)
    engine = ServerEngine("policy", policy_server.url, api_key="", concurrency=4)
    good, lost = answered(predict(engine, asked, WORDS))
    assert set(lost) == bad and len(good) == len(asked) - len(bad)


# -- one picture for all engines


def photograph(width: int, height: int) -> Image.Image:
    "Something that JPEG makes small: waves."
    waves = np.add.outer(np.arange(height) // 9, np.arange(width) // 7)[..., None] * np.array([1, 2, 3])
    return Image.fromarray((waves % 256).astype(np.uint8))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "grey.jpg", "palette.png"])
def test_a_file_that_every_decoder_reads_alike_travels_as_it_is(tmp_path, name):
    mode = {"grey.jpg": "L", "palette.png": "P"}.get(name, "RGB")
    photograph(400, 300).convert(mode).save(tmp_path / name)
    shown = picture_of(Sample(name, tmp_path / name, "dog"))
    assert shown.data == (tmp_path / name).read_bytes() and shown.image.tobytes() == decoded(shown).tobytes()


def decoded(shown) -> Image.Image:
    "The picture as a server decodes it, which knows nothing of what we did."
    import base64

    return Image.open(io.BytesIO(base64.b64decode(shown.url.partition(",")[2]))).convert("RGB")


def odd_files(folder: Path) -> dict[str, Image.Image]:
    "Files that decoders read in different ways, or that servers refuse; by name."
    picture = photograph(400, 300)
    exif = Image.Exif()
    exif[0x0112] = 6
    glass = picture.convert("RGBA")
    glass.putalpha(Image.fromarray(np.full((300, 400), 99, np.uint8)))
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    files = {
        "lying.jpg": (picture, {"exif": exif}),
        "cmyk.jpg": (picture.convert("CMYK"), {}),
        "glass.png": (glass, {}),
        "glass.webp": (glass, {}),
        "deep.png": (deep, {}),
        "a.gif": (picture, {}),
        "a.bmp": (picture, {}),
        "a.tiff": (picture, {}),
        "moving.webp": (picture, {"save_all": True, "append_images": [picture.rotate(90)]}),
        "large.jpg": (photograph(4000, 3000), {}),
        "strip.png": (photograph(1200, 5), {}),
    }
    for name, (image, how) in files.items():
        image.save(folder / name, **how)
    return files


def test_every_other_picture_is_made_into_one_that_is_read_alike(tmp_path):
    for name in odd_files(tmp_path):
        sample = Sample(name, tmp_path / name, "dog")
        shown = picture_of(sample)
        assert shown.data != (tmp_path / name).read_bytes(), name
        assert decoded(shown).tobytes() == shown.image.tobytes(), name
        assert shown.image.width * shown.image.height <= SEEN_PIXELS
        assert len(shown.url) < 1_000_000


def test_a_photograph_does_not_grow_on_its_way(tmp_path):
    noise(2000, 1500).save(tmp_path / "a.jpg", quality=90)  # 3 MB and three times as many pixels as are looked at
    shown = picture_of(Sample("a", tmp_path / "a.jpg", "dog"))
    assert len(shown.url) < (tmp_path / "a.jpg").stat().st_size
    whole = picture_of(Sample("a", tmp_path / "a.jpg", "dog"), max_pixels=3_000_000)
    assert whole.data == (tmp_path / "a.jpg").read_bytes()


def test_small_pictures_in_memory_lose_nothing():
    for size in ((8, 8), (56, 56), (256, 256)):
        picture = noise(*size)
        shown = picture_of(Sample("plate", picture, "dog"))
        assert shown.image.tobytes() == picture.tobytes() == decoded(shown).tobytes()


def test_server_and_transformers_see_the_same_picture(policy_server, tmp_path):
    from policy_server import expected

    odd_files(tmp_path)
    asked = [Sample(path.name, path, "dog") for path in sorted(tmp_path.iterdir())]
    engine = ServerEngine("policy", policy_server.url, api_key="")
    rows = predict(engine, asked, WORDS)
    seen, bad = opened(asked)
    assert not bad and [row["text"] for row in rows] == [expected(one.image, WORDS, 0)[0] for _, one in seen]


def test_the_bound_is_said_and_kept(tiny, policy_server, tmp_path):
    photograph(800, 600).save(tmp_path / "a.png")
    asked = [Sample("a", tmp_path / "a.png", "dog")]
    for engine in (TransformersEngine(tiny), ServerEngine("policy", policy_server.url, api_key="")):
        assert engine.describe()["max_pixels"] == SEEN_PIXELS
        small = replace(engine, max_pixels=50_000) if isinstance(engine, TransformersEngine) else engine
        assert small.describe()["max_pixels"] in (50_000, SEEN_PIXELS)
    [(_, sample)] = opened(asked, 50_000)[0]
    assert sample.image.width * sample.image.height <= 50_000
    with pytest.raises(UserError, match="^max_pixels is 3; it must be at least 784, one image token of 28 x 28$"):
        make_engine("openai", "policy", base_url=policy_server.url, max_pixels=3)


# -- training


def test_training_leaves_out_what_cannot_be_opened_and_goes_on(tmp_path, monkeypatch):
    from speciarl.training import loop
    from speciarl.training.recipe import load_recipe

    recipe = load_recipe("smoke/sft", ["data.birds=8", "steps=1", "prompts_per_step=2"])
    samples = loop.training_samples(recipe)
    (tmp_path / "torn.jpg").write_bytes(b"I am a picture")
    noise(1200, 5).save(tmp_path / "strip.png")
    samples[0] = replace(samples[0], image=tmp_path / "torn.jpg")
    for i in range(1, 8):
        samples[i] = replace(samples[i], image=tmp_path / "strip.png")
    monkeypatch.setattr(loop, "training_samples", lambda recipe, data_root: samples)
    told = []
    run = loop.train(recipe, tmp_path / "run", say=told.append)
    fault = f"{tmp_path / 'torn.jpg'}: the image is corrupt, truncated or of another format; replace the file"
    assert told[0] == f"1 of 8 pictures are left out: {fault}"
    assert read_json(run / "card.json")["left_out"] == [samples[0].id]
    (tmp_path / "strip.png").write_bytes(b"")
    with pytest.raises(UserError, match="of 8 pictures only 0 can be opened, fewer than the 2 prompts of a generation"):
        loop.train(recipe, tmp_path / "other", say=told.append)
    assert not (tmp_path / "other").exists()


# -- before training


def test_unreadable_pictures_are_set_apart(tmp_path):
    asked, bad = folder_of_all_kinds(tmp_path)
    good, faults = readable(asked)
    assert set(faults) == bad and len(good) == len(asked) - len(bad)
    assert readable([Sample("p", Image.open(io.BytesIO((tmp_path / "lying.jpg").read_bytes())), "dog")])[1] == {}
