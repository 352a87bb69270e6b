"""What the demo shows: a live table on a terminal, plain lines elsewhere, and a summary at the end."""

import sys
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stream_iwae.lab.outcome import Outcome

_ROWS = 12  # latest alerts on the terminal
_COLOURS = {"warning": "yellow", "major": "dark_orange", "critical": "red"}

AlertData = dict[str, Any]


class DemoView:
    """Tells what happens, as it happens."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())
        self._alerts: list[AlertData] = []
        self._note = ""
        self._live = Live(console=self._console, refresh_per_second=8) if self._console.is_terminal else None

    def __enter__(self) -> Self:
        """Begin."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """One step of the demo."""
        self._console.print(f"[bold]==>[/bold] {text}")

    def progress(self, note: str) -> None:
        """Something that changes many times; only a terminal shows it."""
        self._note = note
        self._refresh()

    def alert(self, alert: AlertData) -> None:
        """An alert that has just been read."""
        if self._live is None:
            self._console.print(_line(alert))
        self._alerts.append(alert)
        self._refresh()

    def _refresh(self) -> None:
        if self._live is None:
            return
        table = Table(title="alerts", expand=True)
        for name in ("event time", "status", "severity", "p", "why"):
            table.add_column(name, overflow="ellipsis", no_wrap=name != "why")
        for alert in self._alerts[-_ROWS:]:
            severity = Text(alert["severity"], style=_COLOURS[alert["severity"]])
            p_value = f"{alert['p_value']:.1g}" if alert["p_value"] is not None else "-"
            table.add_row(alert["window_end"][11:19], alert["status"], severity, p_value, alert["reason"])
        self._live.update(Group(Text(self._note, style="cyan"), table))

    def summary(self, outcome: Outcome, numbers: dict[str, str]) -> None:
        """What was caught, what was missed, and how fast."""
        table = Table(title="scenarios")
        for name in ("scenario", "kind", "caught", "after", "severity"):
            table.add_column(name)
        for one in outcome.scenarios:
            caught = ("alarmed" if one.caught else "quiet") if one.benign else ("caught" if one.caught else "MISSED")
            after = f"{one.delay_seconds:.0f} s" if one.delay_seconds is not None else "-"
            table.add_row(one.name, "harmless" if one.benign else "attack", caught, after, one.severity or "-")
        self._console.print(table)
        for false in outcome.false_incidents:
            self._console.print(f"false alert: {false.started_at} {false.severity} {false.reason}")
        for name, value in numbers.items():
            self._console.print(f"{name:>28}: {value}")


def _line(alert: AlertData) -> str:
    return f"{alert['window_end'][:19]} {alert['status']:6} {alert['severity']:8} {alert['reason']}"
