"""How surprising each feature of a row is, given all the others: -log p(x_j | x_-j).

What a feature adds to the score, -sum_k wn_k log p(x_j | z_k), may blame the wrong one: the samples z_k come from an
encoder that has seen the fault, and bend towards it until sound features look wrong. So each feature is left out in
turn, as if it were missing, and the samples of all these encodings are weighed together.

R rows, D features, K samples of each encoding, P = (D + 1) K samples in all, L latent dimensions.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stream_iwae.iwae.likelihoods import gaussian_log_density, standard_normal_log_density
from stream_iwae.iwae.network import Network, Posterior
from stream_iwae.iwae.transform import Encoded

CHUNK_ROWS: Final = 16  # in one fixed shape; times K = 16 samples a multiple of STEADY_ROWS
STEADY_ROWS: Final = 256  # matrix products of other numbers of rows may round a row by its place

Values = NDArray[np.float64]


def surprises(network: Network, encode: Callable[[Values], Encoded], values: Values, noise: Tensor) -> Values:
    """-log p(x_j | x_-j) of each of the network's D terms, (N, D), in nats; meaningless where a feature is missing.

    Args:
        network: Of the model.
        encode: Raw values -> rows on the network's device.
        values: Raw values, (N, D).
        noise: Standard normals (K, 1, L).

    Let q(z) be the mean of the encodings of the row with one feature left out, and of the whole row. Then
    p(x) = E_q p(x, z) / q(z) and p(x_-j) = E_q p(x_-j, z) / q(z), both from the same samples of q, in which all
    encodings have an equal part (Veach and Guibas 1995, the balance heuristic), and p(x_j | x_-j) is their ratio.
    """
    n_rows, n_features = values.shape
    parts = []
    for start in range(0, n_rows, CHUNK_ROWS):
        chunk = values[start : start + CHUNK_ROWS]
        padding = np.full((CHUNK_ROWS - len(chunk), n_features), np.nan)
        parts.append(_surprises(network, encode, np.concatenate([chunk, padding]), noise).cpu())
    return torch.cat(parts)[:n_rows].double().numpy() if parts else np.empty(values.shape)


@torch.no_grad()
def _surprises(network: Network, encode: Callable[[Values], Encoded], values: Values, noise: Tensor) -> Tensor:
    n_rows, n_features = values.shape
    n_encodings = n_features + 1
    copies = np.repeat(values[None], n_encodings, axis=0)  # (D + 1, R, D)
    copies[np.arange(n_features), :, np.arange(n_features)] = np.nan
    copies = copies.reshape(-1, n_features)
    padding = np.full((-len(copies) % STEADY_ROWS, n_features), np.nan)
    posterior = network.encode(encode(np.concatenate([copies, padding])))
    mean, log_sigma = (part[: len(copies)].view(n_encodings, n_rows, -1) for part in posterior)  # (D + 1, R, L)
    z = Posterior(mean, log_sigma).sample(noise.unsqueeze(1))  # (K, D + 1, R, L)
    z = z.flatten(0, 1)  # (P, R, L)
    log_q = [gaussian_log_density(z, m, s.exp()).sum(dim=-1) for m, s in zip(mean, log_sigma, strict=True)]
    log_mixture = torch.logsumexp(torch.stack(log_q), dim=0)  # (P, R)
    terms = network.terms(encode(values), z)  # (P, R, D)
    log_w = terms.sum(dim=-1) + standard_normal_log_density(z) - log_mixture
    # Summed along contiguous samples: a sum over the first dimension rounds by a row's place among the others.
    others = (log_w.unsqueeze(-1) - terms).movedim(0, -1).contiguous()  # (R, D, P)
    without = torch.logsumexp(others, dim=-1)  # (R, D), log p(x_-j)
    return without - torch.logsumexp(log_w.T.contiguous(), dim=-1).unsqueeze(-1)
