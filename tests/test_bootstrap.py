"""What the composition root does with signals and with the process."""

import gc
import os
import signal
import subprocess
import sys

import pytest
import torch

from stream_iwae.bootstrap import settle_process, stop_signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_to_stop_and_what_was_there_comes_back(number):
    before = signal.getsignal(number)
    with stop_signal() as stop:
        assert not stop.is_set
        os.kill(os.getpid(), number)
        assert stop.is_set
    assert signal.getsignal(number) is before


def test_the_second_signal_leaves_at_once():
    program = """
import os, signal
from stream_iwae.bootstrap import stop_signal
with stop_signal():
    os.kill(os.getpid(), signal.SIGTERM)
    print("draining", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)

    assert ended.stdout == "draining\n"
    assert ended.returncode == 128 + signal.SIGTERM


def test_a_settled_process_uses_one_thread_and_still_collects_cycles():
    threads, threshold = torch.get_num_threads(), gc.get_threshold()
    try:
        settle_process()
        assert torch.get_num_threads() == 1
        assert gc.get_freeze_count() > 0
        assert gc.isenabled()
    finally:
        torch.set_num_threads(threads)
        gc.unfreeze()
        gc.set_threshold(*threshold)


def test_a_service_loads_nothing_that_only_learning_or_the_lab_needs():
    """Each of them is tens of megabytes, which every replica would hold for nothing."""
    script = "import sys, stream_iwae.bootstrap; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert not loaded & {"scipy", "river", "sklearn", "matplotlib", "pandas"}
