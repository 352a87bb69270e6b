"""The configuration of the demo: flows of one minute per source address."""

from typing import Any


def demo_config(bootstrap_servers: str, topic: str, http_port: int = 0) -> dict[str, Any]:
    """A whole configuration as plain values; what is not named keeps its default."""
    return {
        "detector": "demo",
        "kafka": {
            "bootstrap_servers": bootstrap_servers,
            "group": "demo",
            "instance": "demo-1",
            "start": "history",
            "commit_interval": "250ms",
            "topics": {"events": topic},
        },
        "events": {"preset": "simulated", "keyed_by_entity": True},
        "windows": {"size": "60s", "grace": "5s"},
        "features": {"preset": "flows-per-source"},
        # A day of history is read back, and all of it may be learnt from: rare habits, such as a nightly
        # backup, are a handful of windows among hundreds of thousands.
        "model": {"steps": 3000},
        "learning": {"warmup": "10000d", "warmup_windows": 100_000, "recent_capacity": 100_000, "interval": "12h"},
        "http": {"port": http_port},
    }
