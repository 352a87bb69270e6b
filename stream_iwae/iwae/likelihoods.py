"""log p(x_j | z): bounded Gaussian and floored categorical, per feature, observed features only.

K samples, N rows, C continuous features (two bounded columns each), G categories.
"""

import math
from typing import Final

import torch
from torch import Tensor

CLASS_FLOOR: Final = 1e-3  # no class is impossible: p = (1 - e) softmax + e / C
_HALF_LOG_2PI: Final = 0.5 * math.log(2.0 * math.pi)


def gaussian_log_density(x: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """Elementwise log N(x; location, scale^2), in nats."""
    return -0.5 * ((x - location) / scale).square() - scale.log() - _HALF_LOG_2PI


def standard_normal_log_density(z: Tensor) -> Tensor:
    """Log N(z; 0, I) over the last dimension, in nats."""
    return (-0.5 * z.square() - _HALF_LOG_2PI).sum(dim=-1)


def floored_log_probabilities(logits: Tensor) -> Tensor:
    """log((1 - e) softmax + e / C) over the last dimension, in nats."""
    n_classes = logits.shape[-1]
    return torch.log((1.0 - CLASS_FLOOR) * torch.softmax(logits, dim=-1) + CLASS_FLOOR / n_classes)


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


def category_terms(classes: Tensor, mask: Tensor, logits: list[Tensor]) -> Tensor:
    """Log p of each category: classes and mask (N, G), logits G tensors (K, N, classes) -> (K, N, G), in nats."""
    terms = []
    for i, logit in enumerate(logits):
        index = classes[:, i].expand(logit.shape[0], -1).unsqueeze(-1)  # (K, N, 1)
        terms.append(floored_log_probabilities(logit).gather(-1, index).squeeze(-1) * mask[:, i])
    return torch.stack(terms, dim=-1)
