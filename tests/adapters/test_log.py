"""Lines are JSON with a time, a level and a component; what repeats is held back and counted."""

import io
import json
import logging
import sys
from datetime import UTC, datetime

import pytest
import structlog

from stream_iwae.adapters.log import Repeats, configure_logging, get_logger


class Now:
    def __init__(self):
        self.s = 100.0

    def __call__(self):
        return self.s


@pytest.fixture
def now():
    return Now()


@pytest.fixture
def lines(monkeypatch, now):
    """Configure logging, and read what was written since."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logging("service", now)

    def read():
        text = written.getvalue()
        written.seek(0)
        written.truncate()
        return [json.loads(line) for line in text.splitlines()]

    yield read
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_an_event_is_one_json_line_with_its_fields(lines):
    get_logger().info("partition taken over", partition=3)

    (line,) = lines()
    at = datetime.fromisoformat(line.pop("ts"))
    assert line == {"event": "partition taken over", "partition": 3, "level": "info", "component": "service"}
    assert at.utcoffset() == UTC.utcoffset(None)


def test_an_error_carries_its_traceback_in_one_line(lines):
    try:
        int("bad")
    except ValueError:
        get_logger().exception("failed")

    (line,) = lines()
    assert line["level"] == "error"
    assert "ValueError: invalid literal" in line["exception"]


def test_libraries_are_heard_from_warnings_on_and_in_the_same_form(lines):
    logging.getLogger("kafka.net").info("chatter")
    logging.getLogger("kafka.net").warning("lost %s", "node 1")

    (line,) = lines()
    assert {line[key] for key in ("event", "level", "logger", "component")} == {
        "lost node 1",
        "warning",
        "kafka.net",
        "service",
    }


def test_what_repeats_is_held_back_and_counted_in_the_next_minute(lines, now):
    for _ in range(12):
        get_logger().warning("not readable", partition=1)
    get_logger().warning("not readable", partition=2)
    assert [line["partition"] for line in lines()] == [1] * 5 + [2]

    now.s += 60
    get_logger().warning("not readable", partition=1)
    get_logger().warning("not readable", partition=1)
    assert [line.get("held_back") for line in lines()] == [7, None]


def test_a_library_that_repeats_itself_is_held_back_whatever_it_fills_in(lines, now):
    for number in range(12):
        logging.getLogger("kafka.cluster").error("topic %s not found", number)
    assert len(lines()) == 5

    now.s += 61
    logging.getLogger("kafka.cluster").error("topic %s not found", 12)
    (line,) = lines()
    assert line["held_back"] == 7


def test_the_memory_of_lines_is_bounded(now):
    repeats = Repeats(1, 60.0, now)

    for number in range(5_000):
        assert repeats.admit(number) == 0

    assert len(repeats._said) <= 1_000
