"""What runs in a child process: the real composition root, on a wall clock that can be set, with a bug if one is asked for.

Children are forked off a server that has imported everything, so a start costs no seconds; each is a process of its own
with its own connections, and is killed like any other.
"""

import ctypes
import faulthandler
import gc
import mmap
import os
import signal
import struct
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Final

from kafka import KafkaConsumer

from stream_iwae.bootstrap import run_service, run_trainer
from stream_iwae.errors import StreamIwaeError
from tests.outages.planted import BUGS

_OFFSET: Final = struct.Struct("<q")  # nanoseconds that the wall clock is ahead
_PR_SET_PDEATHSIG: Final = 1


def run(command: str, config: Path, log: Path, clock: Path, bug: str | None) -> None:
    """Run `command` until it ends; ends this process with the exit code of the command line."""
    _end_with_parent()
    os.setsid()  # Ctrl-C on a terminal reaches the schedule, which stops its children
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _follow_clock(clock)
    signal.signal(signal.SIGUSR1, _say_where)
    if bug is not None:
        BUGS[bug].plant()
    try:
        if command == "run":
            run_service(config, with_trainer=False, with_rekeyer=False)
        else:
            run_trainer(config)
    except StreamIwaeError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def set_clock(clock: Path, offset_s: float) -> None:
    """Set the wall clock of those who follow this file."""
    with clock.open("r+b" if clock.exists() else "w+b") as file:
        file.write(_OFFSET.pack(int(offset_s * 1e9)))


def _say_where(*_: object) -> None:
    """Write stacks, and what consumers fetch from where: a schedule asks for it when something is stuck."""
    faulthandler.dump_traceback()
    for consumer in (found for found in gc.get_objects() if isinstance(found, KafkaConsumer)):
        sys.stderr.write(f"consumer {consumer.config['client_id']}: {consumer._coordinator}\n")
        for partition, state in list(consumer._subscription.assignment.items()):
            sys.stderr.write(f"  {partition}: {vars(state)}\n")
        fetcher = {name: repr(value)[:400] for name, value in vars(consumer._fetcher).items() if name.startswith("_")}
        sys.stderr.write(f"  {fetcher}\n")


def _follow_clock(clock: Path) -> None:
    """Python's wall clock is ahead as the file says from now on; that of native code stays."""
    with clock.open("rb") as file:
        ahead = mmap.mmap(file.fileno(), _OFFSET.size, prot=mmap.PROT_READ)
    true_ns = time.time_ns
    time.time_ns = lambda: true_ns() + _OFFSET.unpack_from(ahead)[0]
    time.time = lambda: time.time_ns() / 1e9


def _end_with_parent() -> None:
    """Be killed when the server ends, which ends with the schedule however that ends: even a child that is stopped."""
    os.close(forkserver._forkserver._forkserver_alive_fd)  # else the server would live as long as its children do
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
