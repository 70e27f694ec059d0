"A chapter in a real JupyterLab: opened in headless Chromium, all cells run, no error; and only read, not changed."

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from browser import Browser

ROOT = Path(__file__).parents[1]
NBS = ROOT / "nbs"
WIDGET = "window.jupyterapp?.shell?.currentWidget"
LIMIT = 180  # seconds until JupyterLab must have done what was asked


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(ask, what: str):
    "What `ask` returns, asked until it is something."
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        try:
            if found := ask():
                return found
        except (OSError, ValueError, KeyError):
            pass
        time.sleep(0.3)
    raise AssertionError(f"waited {LIMIT} s for {what}")


@contextmanager
def running(command: list[str], **options):
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


@contextmanager
def lab_page(folder: Path, page: str, *options: str, cwd: Path):
    "JupyterLab, started in `cwd` with `options` and settings of its own in `folder`, opened at `page` in a browser."
    port = free_port()
    lab = [
        sys.executable,
        "-m",
        "jupyterlab",
        *options,
        "--no-browser",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
        "--ServerApp.password=",
        "--expose-app-in-browser",
    ]
    lab += ["--allow-root"] if os.getuid() == 0 else []
    home = {
        name: str(folder / ".jupyter" / name)
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "IPYTHONDIR",
        )
    }
    with running(lab, env=os.environ | home, cwd=cwd):
        until(lambda: urlopen(f"http://127.0.0.1:{port}/api").read(), "JupyterLab")
        browser = Browser(folder / "profile")
        browser.open(f"http://127.0.0.1:{port}/lab/tree/{page}")
        wanted = f"{WIDGET}?.context?.isReady && {WIDGET}.context.sessionContext.isReady && {WIDGET}.context.path"
        until(lambda: browser.js(wanted) == page, "the notebook and its kernel")
        yield browser
        browser.close()


@pytest.fixture
def page(tmp_path):
    "JupyterLab on a copy of a chapter, opened in a browser."
    shutil.copy(NBS / "7_training" / "1_rules.ipynb", tmp_path)
    with lab_page(tmp_path, "1_rules.ipynb", f"--ServerApp.root_dir={tmp_path}", cwd=tmp_path) as browser:
        yield browser


def options_of_make_lab() -> list[str]:
    "What `make lab` gives to JupyterLab."
    [line] = re.findall(r"^\t\$\(BIN\)/python -m jupyterlab (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return shlex.split(line.replace("$(CURDIR)", str(ROOT)))


def test_make_lab_opens_the_index():
    assert options_of_make_lab()[-1] == "nbs/index.ipynb" and (ROOT / "nbs" / "index.ipynb").is_file()


@pytest.mark.needs_chromium
@pytest.mark.parametrize("name", ["index", "10_cli/7_doctor", "paper/2_judge"])
def test_a_chapter_that_is_read_is_not_asked_to_be_saved(tmp_path, name):
    "As `make lab` opens it: not changed once its kernel is there, its pictures shown, and nbdev's first cells folded."
    with lab_page(tmp_path, f"nbs/{name}.ipynb", *options_of_make_lab(), cwd=ROOT) as browser:
        until(lambda: browser.js(f"{WIDGET}.context.sessionContext.session?.kernel?.status === 'idle'"), "the kernel")
        until(lambda: browser.js(f"{WIDGET}.context.model.getMetadata('language_info') != null"), "its language")
        time.sleep(1)  # what JupyterLab writes of the kernel is there with the next tick
        assert browser.js(f"{WIDGET}.context.model.dirty") is False
        images = "Array.from(document.querySelectorAll('.jp-NotebookPanel img'))"
        assert browser.js(f"{images}.every(image => image.naturalWidth > 0)")
        folded = browser.js(f"{WIDGET}.content.widgets.map(cell => Boolean(cell.inputHidden))")
        cells = json.loads((NBS / f"{name}.ipynb").read_text())["cells"]
        first = ["google.colab" in "".join(cell["source"]) for cell in cells]
        assert all(is_folded for is_folded, is_colab in zip(folded, first) if is_colab) and not all(folded)


@pytest.mark.needs_chromium
def test_a_chapter_runs_in_jupyterlab(page):
    widget = WIDGET
    page.js("jupyterapp.commands.execute('editmenu:clear-all').then(() => true)")
    assert page.js("jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")
    cells = (
        f"Array.from({widget}.content.model.cells).map(cell => cell.toJSON()).filter(cell => cell.cell_type === 'code')"
    )
    until(lambda: page.js(f"{cells}.every(cell => cell.execution_count)"), "all cells")
    found = json.loads(page.js(f"JSON.stringify({cells})"))
    outputs = [output for cell in found for output in cell["outputs"]]
    errors = [re.sub(r"\x1b\[[\d;]*m", "", output["evalue"]) for output in outputs if output["output_type"] == "error"]
    assert errors == [] and len(found) > 10 and len(outputs) > 3
