"""Tests that need a program this machine lacks are listed as not run; with `--require-all` (as CI uses) that is a
failure."""

import shutil
from collections import defaultdict

import pytest

# marker -> any of these programs will do
NEEDS = {
    "needs_redis": ("redis-server",),
    "needs_zsh": ("zsh",),
    "needs_fish": ("fish",),
    "needs_chromium": ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
}
# Files that train, reproduce or start many processes: left out of `make test`, part of `make check`.
SLOW = {
    "test_adapters_processes",
    "test_cli_fine_r1",
    "test_cli_runs",
    "test_closed_world",
    "test_end_to_end",
    "test_engines",
    "test_fingerprints",
    "test_frame",
    "test_jupyterlab",
    "test_keys",
    "test_lab",
    "test_llm_judge",
    "test_own_trainer",
    "test_paper_profile",
    "test_predict",
    "test_reproduce",
    "test_run_faults",
    "test_shell",
    "test_store_faults",
    "test_tapo",
    "test_tapo_faults",
    "test_trainer",
    "test_training",
    "test_training_faults",
    "test_training_verdicts",
    "test_verify",
}
NOT_RUN = pytest.StashKey[dict[str, list[str]]]()


@pytest.fixture
def short_pauses(monkeypatch):
    "Between two attempts at a call the openai client pauses for milliseconds, in place of seconds."
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.005)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.05)


def pytest_addoption(parser):
    parser.addoption(
        "--require-all", action="store_true", help="fail if a test cannot run because a program is not installed"
    )


def pytest_configure(config):
    config.stash[NOT_RUN] = defaultdict(list)


def lacking(item) -> str | None:
    "The program `item` needs and this machine has not, if any."
    for marker, programs in NEEDS.items():
        if item.get_closest_marker(marker) and not any(map(shutil.which, programs)):
            return programs[0]
    return None


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by markers
def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker("slow")
    without = {item: lacking(item) for item in items}
    missing = [item for item in items if without[item]]
    items[:] = [item for item in items if not without[item]]
    for item in missing:
        config.stash[NOT_RUN][without[item]].append(item.nodeid)
    if missing:
        config.hook.pytest_deselected(items=missing)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """With pytest-xdist the workers collect the tests, each all of them; what one could not run, it hands over as it
    ends."""
    node.config.stash[NOT_RUN].update(getattr(node, "workeroutput", {}).get("not_run", {}))


def pytest_sessionfinish(session, exitstatus):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["not_run"] = dict(session.config.stash[NOT_RUN])
    if session.config.stash[NOT_RUN] and session.config.getoption("--require-all"):
        session.exitstatus = exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter, config):
    not_run = config.stash[NOT_RUN]
    if not not_run:
        return
    failure = config.getoption("--require-all")
    total = sum(map(len, not_run.values()))
    terminalreporter.section(
        f"not run here: {total}" + (", and --require-all was asked for" if failure else ""),
        red=failure,
        yellow=not failure,
    )
    for program, tests in not_run.items():
        for test in tests:
            terminalreporter.line(f"{program} is not installed: {test}")
