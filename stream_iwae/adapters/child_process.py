"""A command of ours as a child process: the trainer, or the re-keyer, beside the service."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final, Self

from stream_iwae.delivery import Log

_WAITS_S: Final = (1.0, 5.0, 30.0, 60.0)  # before a dead child is started again
_STOP_S: Final = 10.0


class ChildProcess:
    """Started again when it dies, each time a little later; stopped with us."""

    def __init__(self, command: str, config: Path, log: Log) -> None:
        self._command = [sys.executable, "-m", "stream_iwae", command, "--config", str(config)]
        self._command += ["--child-of", str(os.getpid())]  # so that it outlives no kill -9 of ours
        self._name, self._log = command, log
        self._process: subprocess.Popen[bytes] | None = None
        self._n_deaths = 0
        self._restart_at_s: float | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, and wait."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def revive(self, now_s: float) -> None:
        """Start it again if it has died and waited long enough."""
        if self._process is None or self._process.poll() is None:
            return
        if self._restart_at_s is None:
            wait_s = _WAITS_S[min(self._n_deaths, len(_WAITS_S) - 1)]
            self._n_deaths += 1
            self._restart_at_s = now_s + wait_s
            self._log.error("child died", command=self._name, exit_code=self._process.returncode, restart_in_s=wait_s)
        elif now_s >= self._restart_at_s:
            self._restart_at_s = None
            self._start()

    def _start(self) -> None:
        # A session of its own: Ctrl-C on a terminal reaches us first, and we stop it in order.
        self._process = subprocess.Popen(self._command, start_new_session=True)
