"""The processes of a schedule, each in a slot with a name, and a supervisor that starts again what ended."""

import json
import multiprocessing
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.outages import child

POLL_S: Final = 0.1
_STOP_S: Final = 30.0
GIVES_UP: Final = frozenset({1, 75})  # nothing can be delivered; no broker answers at the start
_RESTART_S: Final = 0.5  # between the end of a process and its next start by the supervisor
_PRELOADED: Final = (
    "stream_iwae.bootstrap",
    "stream_iwae.adapters.confluent_source",
    "stream_iwae.adapters.confluent_sink",
    "tests.outages.child",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")
_SERVER: Final = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(list(_PRELOADED))


class OutageError(Exception):
    """Something did not come about in time."""


def wait_for(is_true: Callable[[], bool], timeout_s: float, what: str) -> float:
    """Wait for a condition; returns how long it took.

    Raises:
        OutageError: It did not come true.
    """
    began_s = time.monotonic()
    while not is_true():
        if time.monotonic() - began_s > timeout_s:
            raise OutageError(f"not after {timeout_s:g} s: {what}")
        time.sleep(POLL_S)
    return time.monotonic() - began_s


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended that nobody had killed."""

    name: str
    code: int
    said: str  # its last line
    was_told: bool  # by SIGTERM


class Running:
    """One process, from its start to its end."""

    def __init__(self, command: str, config: Path, log: Path, clock: Path, bug: str | None) -> None:
        self.log = log
        self._component = "service" if command == "run" else "trainer"
        self._port: int | None = None
        self._process: ForkServerProcess = _SERVER.Process(target=child.run, args=(command, config, log, clock, bug))
        self._process.start()

    @property
    def exit_code(self) -> int | None:
        return self._process.exitcode

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self._process.is_alive() and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, None where it goes on."""
        self._process.join(timeout_s)
        return self._process.exitcode

    def last_line(self) -> str:
        return (self.log.read_text(errors="replace").rstrip().splitlines() or [""])[-1][:400]

    def status(self) -> dict[str, Any]:
        """Its section of /status; empty where it does not answer."""
        sections = json.loads(self._get("/status") or "{}")
        found: dict[str, Any] = sections.get(self._component, {})
        return found

    def samples(self) -> list[tuple[str, dict[str, str], float]]:
        """What /metrics shows; empty where it does not answer."""
        families = text_string_to_metric_families((self._get("/metrics") or b"").decode())
        return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]

    def _get(self, path: str) -> bytes | None:
        if self._port is None:
            listens = rf'"component": "{self._component}", "event": "http listens".*"port": (\d+)'
            found = re.search(listens, self.log.read_text(errors="replace")) if self.log.exists() else None
            if found is None:
                return None
            self._port = int(found[1])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=2) as answer:
                body: bytes = answer.read()
                return body
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None


class Slot:
    """A name under which one process is to run, whatever happens to it."""

    def __init__(self, name: str, command: str, config: Path, bug: str | None = None) -> None:
        self.name = name
        self.lock = threading.RLock()  # held while a fault is at work here
        self.running: Running | None = None
        self.exits: list[Exit] = []
        self.n_starts = 0
        self._command, self._config, self._bug = command, config, bug
        self.clock = config.with_suffix(".clock")
        child.set_clock(self.clock, 0)
        self._is_wanted = False
        self._ended_s: float | None = None
        self._started: list[Running] = []

    def start(self) -> Running:
        """Start the process, in place of the one that was here."""
        self._is_wanted, self._ended_s = True, None
        self.n_starts += 1
        log = self._config.with_name(f"{self.name}-{self.n_starts}.log")
        self.running = Running(self._command, self._config, log, self.clock, self._bug)
        self._started.append(self.running)
        return self.running

    def kill(self) -> None:
        """kill -9, and do not start it again by itself."""
        self._is_wanted = False
        if self.running is not None:
            self.running.send(signal.SIGKILL)
            self.running.wait(10.0)
            self.running = None

    def stop(self) -> None:
        """SIGTERM, and wait until it has drained."""
        self._is_wanted = False
        if self.running is None:
            return
        self.running.send(signal.SIGTERM)
        code = self.running.wait(_STOP_S)
        if code is None:
            self.running.send(signal.SIGKILL)
            self.running.wait(10.0)
            self.exits.append(Exit(self.name, -9, f"did not end within {_STOP_S:g} s of SIGTERM", was_told=True))
        else:
            self.exits.append(Exit(self.name, code, self.running.last_line(), was_told=True))
        self.running = None

    def clear(self) -> None:
        """Leave nothing behind that was ever started here."""
        self._is_wanted = False
        for started in self._started:
            started.send(signal.SIGKILL)
        for started in self._started:
            started.wait(10.0)

    def pause(self) -> None:
        if self.running is not None:
            self.running.send(signal.SIGSTOP)

    def resume(self) -> None:
        if self.running is not None:
            self.running.send(signal.SIGCONT)

    def supervise(self) -> None:
        """Start again what has ended by itself, as any supervisor does."""
        if not self.lock.acquire(blocking=False):
            return
        try:
            if not self._is_wanted or self.running is None or self.running.exit_code is None:
                return
            if self._ended_s is None:
                self._ended_s = time.monotonic()
                self.note_end(self.running)
                self._is_wanted = self.running.exit_code in GIVES_UP
            elif time.monotonic() - self._ended_s > _RESTART_S:
                self.start()
        finally:
            self.lock.release()

    def note_end(self, ended: Running) -> None:
        """Remember how a process ended by itself."""
        self.exits.append(Exit(self.name, ended.exit_code or 0, ended.last_line(), was_told=False))


class Fleet:
    """All slots."""

    def __init__(self, replicas: list[Slot], trainer: Slot) -> None:
        self.replicas, self.trainer = replicas, trainer
        self._is_over = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def __enter__(self) -> Self:
        self._supervisor.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind, whatever state it is in."""
        self._is_over.set()
        self._supervisor.join()
        for slot in self.slots:
            slot.clear()

    @property
    def slots(self) -> list[Slot]:
        return [*self.replicas, self.trainer]

    @property
    def running(self) -> list[Running]:
        """Replicas that are there."""
        return [slot.running for slot in self.replicas if slot.running is not None]

    @property
    def exits(self) -> list[Exit]:
        return [found for slot in self.slots for found in slot.exits]

    def owners(self) -> Counter[int]:
        """How many replicas say that a partition is theirs."""
        return Counter(int(number) for running in self.running for number in running.status().get("partitions", {}))

    def lag(self) -> float | None:
        """The records that replicas say they are behind; None where not every one answers."""
        total = 0.0
        for running in self.running:
            samples = running.samples()
            if not samples:
                return None
            total += sum(value for name, _, value in samples if name == "stream_iwae_consumer_lag_records")
        return total

    def dump(self) -> None:
        """Let every process write to its log where it stands."""
        for slot in self.slots:
            if slot.running is not None:
                slot.running.log.with_suffix(".status").write_text(json.dumps(slot.running.status(), indent=1))
                slot.running.send(signal.SIGUSR1)

    def stop(self) -> None:
        """SIGTERM to all, one after the other."""
        for slot in self.slots:
            with slot.lock:
                slot.stop()

    def _supervise(self) -> None:
        while not self._is_over.wait(POLL_S):
            for slot in self.slots:
                slot.supervise()
