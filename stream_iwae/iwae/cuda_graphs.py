"""One recorded launch in place of a hundred: scoring a chunk on a GPU is bound by launches, not by arithmetic.

A CUDA graph replays the kernels of a function on the very tensors it was recorded with, so chunks have one fixed,
padded shape, and are copied in and out. On a CPU nothing here is used.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from stream_iwae.iwae.transform import Encoded

_WARM_UPS: Final = 3  # before a recording: libraries choose kernels and take memory at the first calls


class GraphedChunk:
    """A function of one chunk's rows, recorded at its first call and replayed at all later ones.

    Args:
        score: From rows on a CUDA device to one tensor; allocates, but neither branches on values nor synchronises.
    """

    def __init__(self, score: Callable[[Encoded], Tensor]) -> None:
        self._score = score
        self._graph: torch.cuda.CUDAGraph | None = None
        self._rows: Encoded | None = None
        self._found: Tensor | None = None

    def __call__(self, rows: Encoded) -> Tensor:
        """What `score` gives for the rows; valid until the next call.

        Raises:
            ValueError: The rows have another shape than those of the first call.
        """
        if self._graph is None:
            self._record(rows)
        assert self._rows is not None  # noqa: S101  # for mypy: `_record` has set all three
        assert self._graph is not None  # noqa: S101
        assert self._found is not None  # noqa: S101
        for held, given in zip(self._rows, rows, strict=True):
            if held.shape != given.shape:
                raise ValueError(f"recorded for a chunk of shape {tuple(held.shape)}, got {tuple(given.shape)}")
            held.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._found

    def _record(self, rows: Encoded) -> None:
        self._rows = Encoded(*(part.clone() for part in rows))
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                self._score(self._rows)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._found = self._score(self._rows)
        self._graph = graph
