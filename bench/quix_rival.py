"""CPU-seconds that Quix Streams takes for a minute's window of five aggregates; run in an environment of its own.

python quix_rival.py SERVERS TOPIC N_EVENTS STATE_DIRECTORY
"""

import resource
import sys

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Max, Mean, Min, Sum


def cpu_s() -> float:
    """Of this process with all its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    servers, topic_name, n_events, directory = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    app = Application(
        broker_address=servers,
        consumer_group="quix",
        auto_offset_reset="earliest",
        state_dir=directory,
        loglevel="WARNING",
    )
    topic = app.topic(
        topic_name,
        value_deserializer="json",
        timestamp_extractor=lambda value, _headers, _timestamp, _kind: value["ts"],
    )
    seen = {"events": 0, "windows": 0, "began": 0.0}

    def count_event(_value: object) -> None:
        if not seen["events"]:
            seen["began"] = cpu_s()
        seen["events"] += 1
        if seen["events"] == n_events:
            app.stop()

    def count_window(_value: object) -> None:
        seen["windows"] += 1

    frame = app.dataframe(topic).update(count_event)
    frame = frame.tumbling_window(60_000, grace_ms=0).agg(
        flows=Count(), bytes=Sum("bytes"), largest=Max("bytes"), packets=Mean("packets"), shortest=Min("duration_s")
    )
    frame.final().update(count_window)
    app.run()  # its `count` is of results
    print(seen["events"], seen["windows"], cpu_s() - seen["began"])


if __name__ == "__main__":
    main()
