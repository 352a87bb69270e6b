"""The service as a child process: started, asked for its status, stopped in order."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from stream_iwae.errors import StreamIwaeError

_POLL_S: Final = 0.25
_STOP_S: Final = 30.0
_TAIL_LINES: Final = 15

Status = dict[str, Any]


class ServiceError(StreamIwaeError):
    """The service ended, or did not come to the expected state in time; quotes its last lines."""


class ServiceProcess:
    """`stream-iwae run` on a configuration; its port is read from its log."""

    program: tuple[str, ...] = ("-m", "stream_iwae")
    command = "run"
    component = "service"

    def __init__(self, config: Path, log: Path, *options: str) -> None:
        self._log = log
        self._port: int | None = None
        with log.open("wb") as file:
            command = [sys.executable, *self.program, self.command, "--config", str(config), *options]
            # A session of its own: Ctrl-C reaches the demo, which stops the service in order.
            self._process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)

    def __enter__(self) -> Self:
        """It is running already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """SIGTERM, and wait for the drain."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        """Of the service; its trainer is a child."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll()

    @property
    def port(self) -> int | None:
        """Of /status and /metrics; None until it listens."""
        if self._port is None:
            listens = rf'"component": "{self.component}", "event": "http listens".*"port": (\d+)'
            found = re.search(listens, self._log.read_text(encoding="utf-8", errors="replace"))
            self._port = int(found[1]) if found else None
        return self._port

    def status(self) -> Status:
        """The section of /status that the process fills; empty before the first turn of its loop."""
        if self.port is None:
            return {}
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=5) as answer:
                sections: dict[str, Status] = json.load(answer)
        except (urllib.error.URLError, TimeoutError):  # still starting, or just gone: `wait_until` tells which
            return {}
        return sections.get(self.component, {})

    def wait_until(self, is_done: Callable[[Status], bool], timeout_s: float, tell: Callable[[Status], None]) -> Status:
        """Ask until `is_done`; returns that status.

        Raises:
            ServiceError: It ended, or it took longer than `timeout_s`.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            status = self.status()
            if status and is_done(status):
                return status
            if status:
                tell(status)
            if self._process.poll() is not None:
                raise ServiceError(f"the service ended with code {self._process.returncode}:\n{self._tail()}")
            if time.monotonic() > deadline_s:
                raise ServiceError(f"the service was not done after {timeout_s:.0f} s:\n{self._tail()}")
            time.sleep(_POLL_S)

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])


class RekeyerProcess(ServiceProcess):
    """`stream-iwae rekey` on a configuration."""

    command = "rekey"
    component = "rekeyer"
