"""What scores rows beside the network, and how the surprises of both become one score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream_iwae.iwae.neighbours import Neighbours, one_hot
from stream_iwae.iwae.surprise_scale import Surprise

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Channels:
    """Reference rows, and what a network's score and a distance from those rows come to in nats of surprise."""

    neighbours: Neighbours
    of_network: Surprise
    of_distance: Surprise

    def combine(self, network: Values, distance: Values) -> Values:
        """(N,) scores of the network and (N,) distances -> (N,) nats: the larger surprise."""
        return np.maximum(self.of_network.nats_of(network), self.of_distance.nats_of(distance))

    def is_gap(self, network: Values, distance: Values) -> NDArray[np.bool_]:
        """Whether the distance is what surprises in (N,) rows."""
        return self.of_distance.nats_of(distance) > self.of_network.nats_of(network)

    def tensors(self, class_counts: Sequence[int]) -> dict[str, Tensor]:
        """What goes into the artefact as tensors: the numbers of each reference, and its classes, 0 for none."""
        references = self.neighbours.references
        numbers, *hot = references.split([references.shape[1] - sum(class_counts), *class_counts], dim=1)
        classes = torch.stack([part.argmax(dim=1) for part in hot], dim=1) if hot else numbers[:, :0]
        return {"numbers": numbers.to(torch.float16).contiguous(), "classes": classes.to(torch.uint8)}

    def to_json(self) -> dict[str, Any]:
        """What goes into the artefact as JSON."""
        return {"of_network": self.of_network.to_json(), "of_distance": self.of_distance.to_json()}

    @classmethod
    def of(cls, data: dict[str, Any], tensors: dict[str, Tensor], class_counts: Sequence[int]) -> Self:
        """Put together what `to_json` and `tensors` took apart; raises what a missing or misshapen part does."""
        classes = tensors["classes"].to(torch.int64)
        if classes.shape[1] != len(class_counts):
            raise ValueError(f"need references of {len(class_counts)} categories, got {tuple(classes.shape)}")
        if any(int(column.max()) >= count for column, count in zip(classes.T, class_counts, strict=True)):
            raise ValueError(f"a reference has a class that is none of {list(class_counts)}")
        hot = [one_hot(column, count) for column, count in zip(classes.T, class_counts, strict=True)]
        neighbours = Neighbours(torch.cat([tensors["numbers"].float(), *hot], dim=1))
        return cls(neighbours, Surprise.from_json(data["of_network"]), Surprise.from_json(data["of_distance"]))
