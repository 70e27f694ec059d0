"The list of tests that could not run here, tried on a miniature test suite."

from pathlib import Path

import pytest

SUITE = """
import pytest

@pytest.mark.needs_redis
def test_store(): pass

def test_plain(): pass
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    "A folder with our conftest and one test of two that needs redis; the only programs there are those in its `bin`."
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text(encoding="utf-8"))
    pytester.makeini("[pytest]\nmarkers =\n    needs_redis: a marker\n")
    pytester.makepyfile(test_it=SUITE)
    monkeypatch.setenv("PATH", str(pytester.mkdir("bin")))
    return pytester


def test_a_missing_program_is_listed_and_is_no_failure(suite):
    result = suite.runpytest("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*not run here: 1*", "redis-server is not installed: test_it.py::test_store"])
    assert result.ret == 0


def test_require_all_makes_it_a_failure(suite):
    result = suite.runpytest("-p", "no:cacheprovider", "--require-all")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*not run here: 1, and --require-all was asked for*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_with_the_program_everything_runs(suite):
    program = suite.path / "bin" / "redis-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    result = suite.runpytest("-p", "no:cacheprovider", "--require-all")
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*not run here*")
    assert result.ret == 0


def test_on_two_workers_the_list_and_the_failure_are_the_same(suite):
    result = suite.runpytest_subprocess("-p", "no:cacheprovider", "-n", "2", "--require-all")
    result.stdout.fnmatch_lines(
        ["*not run here: 1, and --require-all was asked for*", "redis-server is not installed: test_it.py::test_store"]
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED and "1 passed" in result.stdout.str()
