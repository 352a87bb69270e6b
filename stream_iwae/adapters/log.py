"""Structured logs: JSON lines, or a console form on a terminal. Constant events with variable fields."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping, MutableMapping
from typing import Any, Final

import structlog

REPEATS: Final = 5  # of one line that are written in each window
WINDOW_S: Final = 60.0
_MOST_LINES: Final = 1_000  # that are told apart


def configure_logging(component: str, now_s: Callable[[], float] = time.monotonic) -> None:
    """Send our events and the libraries' warnings to standard error, each with time, level and component.

    A line that comes again and again is written five times a minute; the next one tells how many were held back.
    """
    is_terminal = sys.stderr.isatty()
    repeats = Repeats(REPEATS, WINDOW_S, now_s)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer(sort_keys=True)
    )
    structlog.configure(
        processors=[repeats.process, *shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    structlog.contextvars.bind_contextvars(component=component)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(repeats.filter)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(["held_back"]), structlog.stdlib.add_logger_name, *shared],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def get_logger() -> Any:
    """The logger of this process."""
    return structlog.get_logger()


class Repeats:
    """Holds back what has been said often enough; safe in all threads."""

    def __init__(self, limit: int, window_s: float, now_s: Callable[[], float]) -> None:
        self._limit, self._window_s, self._now_s = limit, window_s, now_s
        self._said: dict[Hashable, tuple[float, int]] = {}  # since when, and how often
        self._lock = threading.Lock()

    def admit(self, line: Hashable) -> int | None:
        """None to hold a line back; else how many like it were held back before."""
        now_s = self._now_s()
        with self._lock:
            since_s, count = self._said.get(line, (now_s, 0))
            if now_s - since_s >= self._window_s:
                self._said[line] = (now_s, 1)
                return max(0, count - self._limit)
            if len(self._said) >= _MOST_LINES:
                self._said.clear()
            self._said[line] = (since_s, count + 1)
            return None if count >= self._limit else 0

    def process(self, _: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
        """A structlog processor: the same event with the same fields is the same line."""
        held_back = self.admit((method, repr(sorted(event.items()))))
        if held_back is None:
            raise structlog.DropEvent
        if held_back:
            event["held_back"] = held_back
        return event

    def filter(self, record: logging.LogRecord) -> bool:
        """A filter of a logging handler: the same text is the same line, whatever is filled in."""
        held_back = self.admit((record.name, record.levelno, record.msg))
        if held_back:
            record.held_back = held_back
        return held_back is not None
