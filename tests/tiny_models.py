"""Tiny vision-language models of seven families, with random weights, saved as a checkpoint is: for tests that the same
code asks them all.

`save(family, folder)` builds one: model, image processor, tokenizer with the family's own special tokens, processor
settings, chat template.
"""

import json
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

WORDS = (
    "name what the image shows . , a bird warbler hooded dog cat of in one word be as specific you can <think> "
    "</think> <answer> </answer> None user assistant"
).split()
COMMON = ["<pad>", "<unk>", "<bos>", "<eos>"]
QWEN = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
TOKENS = {
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
    "qwen3_vl": QWEN,
    "internvl": {
        "context_image_token": "<IMG_CONTEXT>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "video_token": "<video>",
    },
    "smolvlm": {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    },
    "llava_onevision": {"image_token": "<image>", "video_token": "<video>"},
    "gemma3": {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
}
PLACE = {"internvl": "<IMG_CONTEXT>", "gemma3": "<start_of_image>", "smolvlm": "<image>", "llava_onevision": "<image>"}
FAMILIES = tuple(TOKENS)


def template(place: str) -> str:
    "A chat template: turns of words, `place` where the picture goes."
    return (
        "{% for m in messages %}<bos> {{ m.role }} {% for part in m.content %}{% if part.type == 'image' %}"
        + place
        + "{% else %} {{ part.text }}{% endif %}{% endfor %} <eos>{% endfor %}{% if add_generation_prompt %}<bos> "
        "assistant{% endif %}"
    )


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    "One token per word, and the special tokens that the family's processor asks for."
    crops = [f"<row_{r}_col_{c}>" for r in range(1, 4) for c in range(1, 4)] if family == "smolvlm" else []
    special = [*COMMON, *TOKENS[family].values(), *crops]
    words = Tokenizer(WordLevel({word: i for i, word in enumerate([*special, *WORDS])}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"</?\w+>|[\w\-]+|[^\s\w]"), "removed", invert=True)
    made = PreTrainedTokenizerFast(
        tokenizer_object=words,
        padding_side="left",
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens=TOKENS[family],
    )
    made.add_special_tokens({"additional_special_tokens": crops}, replace_extra_special_tokens=False) if crops else None
    return made


def qwen_text(words, **more) -> dict:
    "The text half of a tiny Qwen."
    return dict(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        tie_word_embeddings=True,
        **more,
    )


def qwen_ids(words) -> dict:
    "Where the placeholders of a tiny Qwen are."
    ids = {f"{name}_id": words.convert_tokens_to_ids(token) for name, token in QWEN.items()}
    return {**ids, "tie_word_embeddings": True}


SIGLIP = dict(
    hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=56
)


def qwen2_vl(words):
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    vision = dict(
        depth=2,
        embed_dim=32,
        hidden_size=32,
        num_heads=2,
        mlp_ratio=2,
        patch_size=14,
        spatial_merge_size=2,
        temporal_patch_size=2,
    )
    config = Qwen2VLConfig(text_config=qwen_text(words, rope_parameters=rope), vision_config=vision, **qwen_ids(words))
    return (
        Qwen2VLForConditionalGeneration(config),
        Qwen2VLImageProcessorPil(patch_size=14, size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112}),
        {},
    )


def qwen2_5_vl(words):
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    vision = dict(
        depth=2,
        hidden_size=32,
        intermediate_size=48,
        num_heads=2,
        patch_size=14,
        spatial_merge_size=2,
        temporal_patch_size=2,
        window_size=56,
        fullatt_block_indexes=[1],
        out_hidden_size=32,
    )
    config = Qwen2_5_VLConfig(
        text_config=qwen_text(words, rope_parameters=rope), vision_config=vision, **qwen_ids(words)
    )
    return (
        Qwen2_5_VLForConditionalGeneration(config),
        Qwen2VLImageProcessorPil(patch_size=14, size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112}),
        {},
    )


def qwen3_vl(words):
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
    vision = dict(
        depth=2,
        hidden_size=32,
        intermediate_size=48,
        num_heads=2,
        patch_size=16,
        spatial_merge_size=2,
        temporal_patch_size=2,
        out_hidden_size=32,
        num_position_embeddings=16,
        deepstack_visual_indexes=[0],
    )
    config = Qwen3VLConfig(
        text_config=qwen_text(words, head_dim=8, rope_parameters=rope), vision_config=vision, **qwen_ids(words)
    )
    return (
        Qwen3VLForConditionalGeneration(config),
        Qwen2VLImageProcessorPil(patch_size=16, size={"shortest_edge": 64 * 64, "longest_edge": 128 * 128}),
        {},
    )


def internvl(words):
    vision = dict(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=[56, 56],
        patch_size=[14, 14],
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config={"model_type": "qwen2", **qwen_text(words)},
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    images = GotOcr2ImageProcessorPil(
        size={"height": 56, "width": 56}, crop_to_patches=True, min_patches=1, max_patches=2
    )
    return InternVLForConditionalGeneration(config), images, {"image_seq_length": 4}


def smolvlm(words):
    text = {"model_type": "llama", **qwen_text(words)}
    config = SmolVLMConfig(
        vision_config={**SIGLIP, "image_size": 56},
        text_config=text,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    images = SmolVLMImageProcessorPil(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}, do_image_splitting=True
    )
    return SmolVLMForConditionalGeneration(config), images, {"image_seq_len": 4}


def llava_onevision(words):
    pins = [[56, 56], [56, 112], [112, 56]]
    config = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **SIGLIP, "vision_use_head": False},
        text_config={"model_type": "qwen2", **qwen_text(words)},
        image_grid_pinpoints=pins,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        video_token_index=words.convert_tokens_to_ids("<video>"),
    )
    images = LlavaOnevisionImageProcessorPil(size={"height": 56, "width": 56}, image_grid_pinpoints=pins)
    return (
        LlavaOnevisionForConditionalGeneration(config),
        images,
        {"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
    )


def gemma3(words):
    text = {**qwen_text(words, head_dim=8), "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    ids = {
        f"{name}_index": words.convert_tokens_to_ids(token)
        for name, token in (
            ("image_token", "<image_soft_token>"),
            ("boi_token", "<start_of_image>"),
            ("eoi_token", "<end_of_image>"),
        )
    }
    config = Gemma3Config(
        text_config=text, vision_config={**SIGLIP, "vision_use_head": False}, mm_tokens_per_image=4, **ids
    )
    images = Gemma3ImageProcessorPil(size={"height": 56, "width": 56}, image_seq_length=4)
    return Gemma3ForConditionalGeneration(config), images, {"image_seq_length": 4}


def save(family: str, folder: Path, seed: int = 0) -> Path:
    "Build the tiny model of a family and save it to `folder` as a checkpoint is saved."
    torch.manual_seed(seed)
    words = tokenizer(family)
    model, images, settings = globals()[family](words)
    with torch.no_grad():  # random weights of the usual size say nearly the same of every token and every picture
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.1) if not weight.any() else weight.mul_(6)
    model.generation_config.update(eos_token_id=3, pad_token_id=0, bos_token_id=2)
    model.save_pretrained(folder)
    images.save_pretrained(folder)
    words.chat_template = template(PLACE.get(family, "<|vision_start|><|image_pad|><|vision_end|>"))
    words.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return folder
