"""`stream-iwae run` with a scorer that takes its time: a stand-in for a slow device.

    python throttled.py SECONDS_A_CHUNK run --config FILE [OPTION ...]

Everything else is the service as it is installed.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from stream_iwae.cli import main, settle_environment

settle_environment()  # before anything that heeds it is loaded

from stream_iwae import bootstrap  # noqa: E402
from stream_iwae.pipeline import Scorer, ServingModel  # noqa: E402


class Throttled:
    """A scorer that rests after each chunk."""

    def __init__(self, scorer: Scorer, rest_s: float) -> None:
        self._scorer, self._rest_s = scorer, rest_s

    def score(self, values: Any, on_chunk: Callable[[], None]) -> Any:
        """Score as ever, but slowly."""

        def rested() -> None:
            time.sleep(self._rest_s)
            on_chunk()

        return self._scorer.score(values, rested)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)


def throttle(rest_s: float) -> None:
    """From now on, models of this process are slow."""
    load_serving_model = bootstrap.load_serving_model

    def load(*given: Any) -> ServingModel:
        model = load_serving_model(*given)
        return replace(model, scorer=Throttled(model.scorer, rest_s))

    bootstrap.load_serving_model = load


if __name__ == "__main__":
    throttle(float(sys.argv[1]))
    sys.argv = ["stream-iwae", *sys.argv[2:]]
    main()
