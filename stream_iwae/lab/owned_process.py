"""Processes that outlive the one that started them, and are known again by more than their number."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class OwnedProcess:
    """A process that we started. Its number alone may be somebody else's after it has ended."""

    pid: int
    started: str  # as the system tells it; compared, never parsed
    marker: str  # an argument that no other process has

    @classmethod
    def spawn(cls, command: Sequence[str], marker: str, output: Path) -> Self:
        """Start `command` in a session of its own, so that Ctrl-C on our terminal does not reach it.

        Args:
            command: Program and arguments; `marker` is one of the arguments.
            marker: By which the process is known again.
            output: Where its stdout and stderr go; replaced.
        """
        # Not Popen: that warns when it is collected while the process runs, as ours is meant to.
        pid = os.posix_spawn(
            command[0],
            list(command),
            os.environ,
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        identity = _identify(pid)
        return cls(pid, "" if identity is None else identity.started, marker)

    @property
    def is_running(self) -> bool:
        """Whether this very process is still there."""
        identity = _identify(self.pid)
        if identity is None or identity.started != self.started:
            return False
        if identity.has_ended:
            try:
                return os.waitpid(self.pid, os.WNOHANG)[0] == 0
            except ChildProcessError:  # another process started it, and has to take notice
                return False
        return identity.command == "" or self.marker in identity.command  # on its way out it has none

    @property
    def resident_bytes(self) -> int | None:
        """Memory in use; None where the system does not say, or the process has ended."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except OSError:
            return None
        return pages * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens where the process has ended."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def terminate(processes: Sequence[OwnedProcess], timeout_s: float) -> None:
    """Ask all to end, wait, then kill those left; returns once none is there."""
    for process in processes:
        process.signal(signal.SIGTERM)
        process.signal(signal.SIGCONT)  # one that was stopped would not hear the first
    if not _have_ended(processes, timeout_s):
        for process in processes:
            process.signal(signal.SIGKILL)
        _have_ended(processes, timeout_s=10.0)


def _have_ended(processes: Sequence[OwnedProcess], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while any(process.is_running for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


@dataclass(frozen=True, slots=True)
class _Identity:
    started: str
    command: str
    has_ended: bool  # and only waits for its parent to take notice


def _identify(pid: int) -> _Identity | None:
    process = Path(f"/proc/{pid}")
    if not Path("/proc/self").exists():
        return _identify_by_ps(pid)  # macOS
    try:
        # The name in parentheses may hold spaces. After it: the state, 17 further the number of
        # threads (while there are some, the ports are held), 19 further the start time.
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        command = (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return None
    return _Identity(fields[19], command, has_ended=fields[0] in "ZX" and int(fields[17]) <= 1)


def _identify_by_ps(pid: int) -> _Identity | None:
    shown = subprocess.run(
        ["ps", "-ww", "-o", "lstart=,stat=,command=", "-p", str(pid)],  # noqa: S607  where ps lies differs
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    if len(shown) < 6:
        return None
    return _Identity(" ".join(shown[:5]), " ".join(shown[6:]), has_ended=shown[5].startswith("Z"))
