"""When a GPU has no memory left: the same rows in smaller chunks, in the end on the CPU, and somebody is told."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from stream_iwae.iwae.cascade import RowScorer
from stream_iwae.iwae.scoring import CHUNK_ROWS, CUDA_CHUNK_ROWS, Explained, Scores, Values

T = TypeVar("T")

MakeScorer = Callable[[str, int], RowScorer]
"""A device's name and the rows of a chunk -> a scorer there."""


def steps_down(device: str) -> list[tuple[str, int]]:
    """Where to score and how many rows at once, the best first.

    >>> steps_down("cuda")[0], steps_down("cuda")[-2:]
    (('cuda', 8192), [('cuda', 256), ('cpu', 256)])
    """
    sizes = []
    size = CUDA_CHUNK_ROWS
    while size >= CHUNK_ROWS:
        sizes.append(size)
        size //= 2
    return [*((device, size) for size in sizes), ("cpu", CHUNK_ROWS)]


class MemoryRelief:
    """A scorer for a GPU that others may fill: each time memory runs out it takes a step down, and stays there.

    The next model begins at the top again. Chunks of another shape may give a score other last bits.
    """

    def __init__(self, make: MakeScorer, device: str, tell: Callable[[str, int], None]) -> None:
        """Make the first scorer.

        Args:
            make: Called for each step; may itself run out of memory.
            device: Where it would be best, such as "cuda".
            tell: Told where it goes on, after each step down.

        Raises:
            torch.OutOfMemoryError: Not even the CPU's memory sufficed; the same for every method.
        """
        self._make, self._tell = make, tell
        self._steps = steps_down(device)
        self._scorer: RowScorer | None = None
        self._asked(lambda scorer: scorer)

    @property
    def labels(self) -> Mapping[int, str]:
        """Texts of the categories that the model knows."""
        return self._asked(lambda scorer: scorer.labels)

    def score(self, values: Values, on_chunk: Callable[[], None] = lambda: None) -> Scores:
        """Score (N, D) raw values; `on_chunk` is called after each chunk."""
        return self._asked(lambda scorer: scorer.score(values, on_chunk))

    def explain(self, values: Values) -> Explained:
        """Explain (R, D) raw values."""
        return self._asked(lambda scorer: scorer.explain(values))

    def _asked(self, ask: Callable[[RowScorer], T]) -> T:
        while True:
            try:
                if self._scorer is None:
                    self._scorer = self._make(*self._steps[0])
                return ask(self._scorer)
            except torch.OutOfMemoryError:
                if len(self._steps) == 1:
                    raise
                self._scorer = None
            del self._steps[0]
            torch.cuda.empty_cache()  # out of the handler: its traceback holds the tensors
            self._tell(*self._steps[0])
