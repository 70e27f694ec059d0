"A chapter in a real JupyterLab: opened in headless Chromium, all cells run, no error."

import json
import os
import re
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

NBS = Path(__file__).parents[1] / "nbs"
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


@pytest.fixture
def page(tmp_path):
    "JupyterLab on a copy of a chapter, opened in a browser."
    shutil.copy(NBS / "7_training" / "1_rules.ipynb", tmp_path)
    port = free_port()
    lab = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
        "--ServerApp.password=",
        "--expose-app-in-browser",
        f"--ServerApp.root_dir={tmp_path}",
    ]
    lab += ["--allow-root"] if os.getuid() == 0 else []
    home = {
        name: str(tmp_path / ".jupyter" / name)
        for name in (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "IPYTHONDIR",
        )
    }
    with running(lab, env=os.environ | home, cwd=tmp_path):
        until(lambda: urlopen(f"http://127.0.0.1:{port}/api").read(), "JupyterLab")
        browser = Browser(tmp_path / "profile")
        browser.open(f"http://127.0.0.1:{port}/lab/tree/1_rules.ipynb")
        yield browser
        browser.close()


@pytest.mark.needs_chromium
def test_a_chapter_runs_in_jupyterlab(page):
    widget = "window.jupyterapp?.shell?.currentWidget"
    until(
        lambda: (
            page.js(f"{widget}?.context?.isReady && {widget}.context.sessionContext.isReady && {widget}.context.path")
            == "1_rules.ipynb"
        ),
        "the notebook and its kernel",
    )
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
