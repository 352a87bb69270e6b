"""Time in the world: the same for everyone, but for what a process's wall clock says."""

from stream_iwae.adapters.memory import VirtualClock


class WorldClock(VirtualClock):
    """The clock of the processes: its wall time can be set, which no one else's time heeds."""

    def __init__(self, now_ms: int) -> None:
        super().__init__(now_ms)
        self._set_ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self._set_ahead_ms

    def true_ms(self) -> int:
        return super().now_ms()

    def set_wall(self, now_ms: int) -> None:
        self._set_ahead_ms = now_ms - super().now_ms()
