"""A GPU whose memory is full, played by scorers that raise what torch raises."""

import numpy as np
import pytest
import torch

from stream_iwae.iwae.memory_relief import MemoryRelief, steps_down
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings

KINDS = ("magnitude", "category", "gauge")


class FullAbove:
    """A scorer whose device holds chunks of so many rows and no more."""

    def __init__(self, scorer, device, chunk_rows, room):
        self.labels = scorer.labels
        self._scorer, self._room = scorer, room
        self._rows = 0 if device == "cpu" else chunk_rows

    def score(self, values, on_chunk=lambda: None):
        self._fill()
        return self._scorer.score(values, on_chunk)

    def explain(self, values):
        self._fill()
        return self._scorer.explain(values)

    def _fill(self):
        if self._rows > self._room.rows:
            raise torch.OutOfMemoryError("CUDA out of memory")


class Room:
    """How many rows of a chunk have room on the GPU now."""

    def __init__(self, rows):
        self.rows = rows


@pytest.fixture(scope="module")
def rows(make_rows):
    return make_rows(300, KINDS, seed=1)


@pytest.fixture(scope="module")
def model(make_model, rows):
    return make_model(rows, KINDS, ModelSettings(hidden=(8,), latent=2, device="cpu"), gain=0.6)


@pytest.fixture
def room():
    return Room(8192)


@pytest.fixture
def told():
    return []


@pytest.fixture
def relieved(model, room, told):
    """A scorer on a GPU with so much room."""

    def make(device, chunk_rows):
        return FullAbove(Scorer(model, "cpu", chunk_rows), device, chunk_rows, room)

    return MemoryRelief(make, "cuda", lambda *step: told.append(step))


def test_with_room_nothing_happens(relieved, told, model, rows):
    assert np.array_equal(relieved.score(rows).scores, Scorer(model, "cpu", 8192).score(rows).scores)
    assert told == []


def test_a_fuller_gpu_gets_smaller_chunks_and_all_rows_are_scored(relieved, room, told, model, rows):
    room.rows = 2048

    found = relieved.score(rows)

    assert np.array_equal(found.scores, Scorer(model, "cpu", 2048).score(rows).scores)
    assert told == [("cuda", 4096), ("cuda", 2048)]


def test_it_stays_where_it_went(relieved, room, told, rows):
    room.rows = 0
    relieved.explain(rows[:3])
    room.rows = 8192
    relieved.score(rows)

    assert told == steps_down("cuda")[1:]


def test_a_model_that_does_not_fit_at_all_is_made_on_the_cpu(model, rows):
    told = []

    def make(device, chunk_rows):
        if device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Scorer(model, device, chunk_rows)

    scorer = MemoryRelief(make, "cuda", lambda *step: told.append(step))

    assert np.array_equal(scorer.score(rows).scores, Scorer(model, "cpu").score(rows).scores)
    assert told[-1] == ("cpu", 256)


def test_a_cpu_without_memory_is_an_error():
    def make(_device, _chunk_rows):
        raise torch.OutOfMemoryError("not even here")

    with pytest.raises(torch.OutOfMemoryError, match="not even here"):
        MemoryRelief(make, "cuda", lambda *_: None)
