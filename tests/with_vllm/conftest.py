"""Tests against the real vLLM, on CPU, in an environment of their own: `make test-vllm`. The ordinary pytest run leaves
them out.

(The folder is not called "vllm": pytest puts tests/ on the path, and there it would pass for the package.)
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_CACHE_ROOT": str(Path(sys.prefix) / "cache"),
    "VLLM_CONFIG_ROOT": str(Path(sys.prefix) / "cache"),
}
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def environment() -> dict[str, str]:
    "That of a child process that uses vLLM."
    return {**os.environ, **SETTINGS}


def byte_tokenizer(texts: list[str]):
    "A byte-level tokenizer of the kind that language models have, learnt from `texts`."
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=1500,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE
    )


def save_random_model(folder: Path) -> Path:
    "A Qwen3 of 0.2 million random weights, with a tokenizer: whatever it says that makes sense, it was made to say."
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from speciarl.judges.prompt import judge_prompts, load_judge_prompt

    prompts = [load_judge_prompt(name) for name in judge_prompts()]
    tokenizer = byte_tokenizer([text for prompt in prompts for text in (prompt.system, prompt.user)])
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


AS_JUDGE = (
    "--max-model-len",
    4096,
    "--max-logprobs",
    20,
    "--structured-outputs-config",
    '{"backend": "xgrammar", "disable_any_whitespace": true}',
)
AS_POLICY = (
    "--max-model-len",
    256,
    "--dtype",
    "float32",
    "--limit-mm-per-prompt",
    '{"image": 1, "video": 0}',
    "--no-enable-chunked-prefill",
)  # on CPU vLLM 0.31 dies of a seeded request whose prompt is read in parts: "CPU Generator does not use offset"


class Served:
    "`vllm serve`, in a process group of its own, at an address that stays the same when it is started again."

    def __init__(self, model: Path, log: Path, name: str = "judge", options: tuple = AS_JUDGE):
        self.model, self.log, self.name, self.options, self.port, self.process = (
            model,
            log,
            name,
            options,
            free_port(),
            None,
        )
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        command = [
            Path(sys.executable).with_name("vllm"),
            "serve",
            self.model,
            "--served-model-name",
            self.name,
            "--host",
            "127.0.0.1",
            "--port",
            self.port,
            "--max-num-seqs",
            64,
            "--generation-config",
            "vllm",
            "--enforce-eager",
            *self.options,
        ]  # eager saves the minute of compiling
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, env=environment(), start_new_session=True
            )

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
            return response.read().decode()

    def wait(self, seconds: float = 300) -> "Served":
        "Until it answers."
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                self.get("/health")
                return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        pytest.fail(f"vllm serve did not start; the end of its log:\n{self.log.read_text(errors='replace')[-4000:]}")

    def kill(self) -> None:
        "kill -9; its children are asked to go, so that they clear their shared memory away, and then made to."
        if self.process is None:
            return
        group = self.process.pid
        self.process.kill()
        self.process.wait()
        self.process = None
        with contextlib.suppress(ProcessLookupError):  # until nobody is left
            os.killpg(group, signal.SIGTERM)
            for _ in range(50):
                time.sleep(0.2)
                os.killpg(group, 0)
            os.killpg(group, signal.SIGKILL)


@contextlib.contextmanager
def serving(server: Served):
    "The server, at work."
    server.start()
    try:
        yield server.wait()
    finally:
        if server.process is not None:
            server.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.wait(30)
        server.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with serving(Served(save_random_model(folder / "model"), folder / "vllm.log")) as server:
        yield server


@pytest.fixture(scope="module")
def policy_server(tmp_path_factory):
    from speciarl.core.config import ASSETS

    with serving(
        Served(ASSETS / "fieldguide_base", tmp_path_factory.mktemp("policy") / "vllm.log", "policy", AS_POLICY)
    ) as server:
        yield server
