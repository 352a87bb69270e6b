import json

import numpy as np

START_MS = 1_767_571_200_000


def flow(ts, src, port=443, n_bytes=400):
    event = {"ts": ts, "src": src, "dst": "198.51.100.1", "src_port": 40_000, "dst_port": port, "proto": "tcp"}
    return {**event, "bytes": n_bytes, "packets": 3, "duration_s": 0.1, "flags": "S", "exporter": "r1"}


def a_day_in_the_network(seed, n_windows, n_hosts=12):
    """Messages of ordinary windows, and a scan now and then."""
    rng = np.random.default_rng(seed)
    messages = []
    for number in range(n_windows):
        at = START_MS + number * 10_000
        events = [
            flow(
                at + int(rng.integers(9_900)),
                f"10.0.0.{host}",
                int(rng.choice([80, 443, 53])),
                int(rng.lognormal(6, 0.5)),
            )
            for host in range(n_hosts)
            for _ in range(int(rng.integers(1, 6)))
        ]
        if number % 9 == 5:
            scanner = f"10.0.1.{number % 250}"
            events += [flow(at + 100 + port, scanner, port, 60) for port in range(1, 400)]
        messages += [json.dumps(event).encode() for event in sorted(events, key=lambda event: event["ts"])]
    return messages
