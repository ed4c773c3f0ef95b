"""Processes and the signals that end them: none is lost, and none reaches those that are ended otherwise."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from mgwa_pyg.train.processes import uninterrupted

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no signal can be sent to a process there")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_block_ends(number):
    def stop(number, frame):
        raise KeyboardInterrupt(number)

    before, done = signal.signal(number, stop), []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        try:
            with uninterrupted():
                os.kill(os.getpid(), number)
                done.append(number)
        except KeyboardInterrupt as error:
            done += error.args
        assert done == [number, number]
        assert signal.getsignal(number) is stop
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    finally:
        signal.signal(number, before)


def test_a_process_that_starts_in_the_block_does_not_hear_ctrl_c():
    program = "import os, signal; os.kill(os.getpid(), signal.SIGINT); print('goes on')"
    with uninterrupted():
        done = subprocess.run([sys.executable, "-c", program], text=True, capture_output=True)
    assert done.stdout == "goes on\n"


def test_other_threads_leave_signals_as_they_are():
    seen = []

    def look():
        with uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
