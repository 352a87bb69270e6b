"""A scorer and a learner that anyone can check by hand, in place of the network."""

import functools
import json
import zlib
from collections.abc import Callable

import numpy as np

from stream_iwae.batches import Explanations, ScoreBatch
from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.detection.judge import Judge
from stream_iwae.errors import ArtefactError
from stream_iwae.learning.learner import Outcome
from stream_iwae.learning.schedule import Job
from stream_iwae.pipeline import ServingModel

PINNED = "0.0"


class CountingScorer:
    """The score of a window is its number of flows."""

    def __init__(self, version: str) -> None:
        self._version = version

    def score(self, values, on_chunk):
        n = len(values)
        on_chunk()
        return ScoreBatch(self._version, values[:, 0].copy(), np.zeros(n), np.ones(n), values[:, 0].copy())

    def explain(self, values):
        return Explanations(values.copy(), values * 0, values * 0, values * 0 + 1, {})


@functools.cache
def _judge() -> Judge:
    normal = np.random.default_rng(7).exponential(1.0, 4000)
    return Judge(Calibration.fit(normal, windows_per_day=1000.0), DetectionConfig(budget="5/day"))


@functools.cache
def serving_model(version: str) -> ServingModel:
    """A model that differs from others in its name alone."""
    return ServingModel(version, "any", CountingScorer(version), _judge())


def load_model(blob: bytes) -> ServingModel:
    """What the service does with an artefact."""
    return serving_model(json.loads(blob)["version"])


def blob_of(version: str, n_rows: int, digest: int) -> bytes:
    """An artefact that says which rows it was learnt from."""
    return json.dumps({"version": version, "n_rows": n_rows, "digest": digest}).encode()


def digest_of(row_ids: list[int]) -> int:
    """Depends on every row and on their order."""
    return zlib.crc32(np.array(row_ids, dtype="<u8").tobytes())


class Served:
    """What a learner has announced last."""

    def __init__(self, version: str) -> None:
        self.version = version


class CountingLearner:
    """A model after the first rows and a newer one after every few more: the shell's faults are the point.

    Its surface is that of `learning.learner.Learner`, whose own restarts tests/learning and tests/test_trainer prove.
    """

    FIRST_ROWS, EACH_ROWS = 4, 4

    def __init__(self) -> None:
        self.served: Served | None = None
        self.n_foreign = 0
        self.rows: list[int] = []  # taken, in the order of the topic
        self._pending: list[int] = []
        self._histories: set[int] = set()
        self._next_at = self.FIRST_ROWS
        self._major = 0
        self.drift_distance = self.gated_share = 0.0

    @property
    def n_rows(self) -> int:
        return len(self.rows)

    def sizes(self) -> dict[str, int]:
        return {"rows": len(self.rows)}

    def add(self, batch) -> None:
        self._pending += batch.row_ids.tolist()

    def due(self) -> Job | None:
        n_lacking = max(0, self._next_at - len(self.rows))
        taken, self._pending = self._pending[:n_lacking], self._pending[n_lacking:]
        self.rows += taken
        if len(self.rows) < self._next_at:
            return None
        return Job.FIRST if self.served is None else Job.TUNE

    def absorb(self) -> None:
        self.rows += self._pending
        self._pending = []
        while self._next_at <= len(self.rows):
            self._next_at += self.EACH_ROWS

    def step(self, tick: Callable[[], None]) -> Outcome:
        job = Job.FIRST if self.served is None else Job.TUNE
        tick()
        tick()
        self._major += 1
        self.served = Served(f"{self._major}.0")
        self._next_at = len(self.rows) + self.EACH_ROWS
        blob = blob_of(self.served.version, len(self.rows), digest_of(self.rows))
        return Outcome(job, "promoted", "better", "", self.served.version, blob)

    def skip(self, reason: str) -> Outcome:
        self._next_at = len(self.rows) + self.EACH_ROWS
        return Outcome(Job.TUNE, "skipped", reason, "", self.served.version if self.served else "")

    def restore(self, blob: bytes) -> None:
        try:
            document = json.loads(blob)
        except ValueError as error:
            raise ArtefactError("damaged") from error
        self.served = Served(document["version"])
        self.reserve([self.served.version])
        self._next_at = max(self._next_at, document["n_rows"] + self.EACH_ROWS)

    def reserve(self, versions: list[str]) -> None:
        self._major = max([self._major, *(int(version.split(".")[0]) for version in versions)])
