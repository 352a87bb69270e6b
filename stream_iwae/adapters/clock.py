"""The time of this machine."""

import time


class SystemClock:
    """Clock of the operating system."""

    def now_ms(self) -> int:
        """Wall-clock milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()
