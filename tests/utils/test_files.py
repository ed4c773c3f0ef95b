"""Files are whole, one writer does not disturb another, and nothing that was left behind stays."""

import errno
import subprocess
import sys
import threading

import pytest

from mgwa_pyg.utils.files import DamagedFileError, locked_folder, read_json, whole_file, write_json

KILLED = """
import os, signal, sys
from pathlib import Path
from mgwa_pyg.utils.files import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_writer(path):
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -9


@pytest.mark.skipif(sys.platform == "win32", reason="nobody can tell there who is writing")
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
    path, other = tmp_path / "new" / "[a] b*.txt", tmp_path / "new" / "other.txt"
    kill_a_writer(path)
    kill_a_writer(path)
    kill_a_writer(other)
    assert len(list(path.parent.iterdir())) == 2  # The second one removed what the first had left.
    assert not path.exists()
    with whole_file(path) as file:
        file.write_text("whole")
    assert path.read_text() == "whole"
    (left,) = (file for file in path.parent.iterdir() if file != path)
    assert left.name.startswith(".other.txt.")


def test_writers_at_work_are_left_alone(tmp_path):
    path = tmp_path / "a.txt"
    with whole_file(path) as first:
        with whole_file(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
        first.write_text("first")
    assert path.read_text() == "first"

    failed = []

    def write(number):
        try:
            for _ in range(50):
                with whole_file(path) as file:
                    file.write_text(str(number) * 1000)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert path.read_text() in [str(number) * 1000 for number in range(4)]
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_as_readable_as_others(tmp_path):
    (tmp_path / "plain").touch()
    write_json(tmp_path / "whole", {})
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("text", ["", '{"a": ', "[]", "7", "null", '{"b": 1}', "\0"])
def test_damaged_json_is_named(tmp_path, text):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1, "b": 2})
    assert read_json(path, ["a"], "run again") == {"a": 1, "b": 2}
    path.write_text(text)
    with pytest.raises(DamagedFileError, match=r"a\.json is damaged \(.*\): run again"):
        read_json(path, ["a"], "run again")


HOLDING = """
import sys, time
from pathlib import Path
from mgwa_pyg.utils.files import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("there", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there")
def test_a_folder_is_one_process_s_until_it_is_done_or_dead(tmp_path):
    folder = tmp_path / "new" / "folder"
    command = [sys.executable, "-c", HOLDING, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "there\n"
        with (
            pytest.raises(BlockingIOError, match="folder is in use by another process"),
            locked_folder(folder),
        ):
            pass
        holder.kill()
    with locked_folder(folder) as died:
        assert died
        with pytest.raises(BlockingIOError, match="in use"), locked_folder(folder):  # In one process, too.
            pass
    with pytest.raises(ZeroDivisionError), locked_folder(folder):
        1 / 0  # noqa: B018
    with locked_folder(folder) as died:
        assert not died
    assert not any(folder.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there")
def test_a_folder_without_locks_is_used_all_the_same(tmp_path, monkeypatch):
    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with locked_folder(tmp_path) as died:
        assert not died
    assert not any(tmp_path.iterdir())


def test_a_file_is_no_folder_to_lock(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file: choose a folder"):
        locked_folder(tmp_path / "file").__enter__()
