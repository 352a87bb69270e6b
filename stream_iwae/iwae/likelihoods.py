"""log p(x_j | z): bounded Gaussian and floored categorical, per feature, observed features only.

K samples, N rows, C continuous features (two bounded columns each), G categories with M classes in all.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

import torch
from torch import Tensor

CLASS_FLOOR: Final = 1e-3  # no class is impossible: p = (1 - e) softmax + e / C
MIN_OUTPUTS: Final = 16  # of a matrix product: with MKL a narrower one rounds by a row's place in the batch
LOGIT_LIMIT: Final = 40.0  # exp stays finite in float32; the floor hides what is beyond
_HALF_LOG_2PI: Final = 0.5 * math.log(2.0 * math.pi)


def gaussian_log_density(x: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """Elementwise log N(x; location, scale^2), in nats."""
    return -0.5 * ((x - location) / scale).square() - scale.log() - _HALF_LOG_2PI


def standard_normal_log_density(z: Tensor) -> Tensor:
    """Log N(z; 0, I) over the last dimension, in nats."""
    return (-0.5 * z.square() - _HALF_LOG_2PI).sum(dim=-1)


def continuous_terms(bounded: Tensor, mask: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """Log p of each continuous feature, both bounded columns together.

    Args:
        bounded: (N, 2C) targets.
        mask: (N, C), 1 where present.
        location: (K, N, 2C).
        scale: (2C,).

    Returns:
        (K, N, C), in nats; 0 where masked, which leaves the marginal of the others
        (Mattei and Frellsen 2019, equation 5).
    """
    n_continuous = mask.shape[-1]
    columns = gaussian_log_density(bounded, location, scale)  # (K, N, 2C)
    return (columns[..., :n_continuous] + columns[..., n_continuous:]) * mask


class Classes(NamedTuple):
    """Where the classes of each category lie among all M."""

    starts: Tensor  # (G,) int64
    sizes: Tensor  # (G,)
    blocks: Tensor  # (M, G or more), 1 where a class belongs to a category; empty columns follow

    @classmethod
    def of(cls, counts: Sequence[int]) -> Self:
        """Categories of so many classes each, one after the other."""
        sizes = torch.tensor(list(counts), dtype=torch.int64)
        owners = torch.arange(len(sizes)).repeat_interleave(sizes)  # (M,)
        blocks = torch.nn.functional.one_hot(owners, max(MIN_OUTPUTS, len(sizes)))
        return cls(sizes.cumsum(0) - sizes, sizes.float(), blocks.float())


def category_terms(classes: Tensor, mask: Tensor, logits: Tensor, layout: Classes) -> Tensor:
    """Log p of each category: log((1 - e) softmax + e / classes).

    All categories at once: a softmax for each of them takes four times as long on a CPU.

    Args:
        classes: (N, G) int64.
        mask: (N, G), 1 where present.
        logits: (K, N, M).
        layout: Which of the M belong together.

    Returns:
        (K, N, G), in nats; 0 where masked.
    """
    odds = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT).exp()
    totals = (odds @ layout.blocks)[..., : mask.shape[-1]]  # (K, N, G)
    chosen = odds.gather(-1, (classes + layout.starts).expand(len(odds), -1, -1))
    return torch.log((1.0 - CLASS_FLOOR) * chosen / totals + CLASS_FLOOR / layout.sizes) * mask
