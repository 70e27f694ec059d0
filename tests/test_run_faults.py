"""A few of the faults that `make soak` goes through at length: a server that fails a third of its calls, kill -9, two
runs in one folder, a full disk; and file systems that know no locks."""

import errno
import fcntl
import os
import time

import pytest
import soak_runs

from speciarl.core.scale import UserError
from speciarl.judges.store import open_store
from speciarl.metrics.runs import hold_run


def test_a_server_that_fails_a_third_of_all_calls_costs_no_answer(tmp_path):
    assert soak_runs.failing_calls(tmp_path, 80) > 1


def test_kill_9_of_the_command_leaves_what_was_answered(tmp_path):
    soak_runs.killed(tmp_path, 2)


def test_of_two_commands_in_one_folder_one_is_refused(tmp_path):
    assert soak_runs.two_at_once(tmp_path, 1) == 1


def test_a_disk_that_is_full_at_any_write_costs_no_answer(tmp_path):
    assert soak_runs.full_disks(tmp_path, 10) > 20


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_at_once_and_nothing_is_left(tmp_path, monkeypatch, number):
    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(fcntl, "lockf", no_locks)
    why = f": its file system knows no locks ({os.strerror(number)}), and two processes would spoil each other's work; "
    began = time.monotonic()
    with pytest.raises(UserError) as error, hold_run(tmp_path / "run"):
        raise AssertionError("it was locked")
    assert str(error.value) == f"cannot lock {tmp_path / 'run'}{why}choose a folder on a local disk"
    with pytest.raises(UserError) as error:
        open_store(tmp_path / "verdicts.sqlite")
    assert str(error.value) == f"cannot lock {tmp_path / 'verdicts.sqlite'}{why}choose a folder on a local disk"
    assert time.monotonic() - began < 5 and list(tmp_path.iterdir()) == []
    open_store(":memory:").close()
