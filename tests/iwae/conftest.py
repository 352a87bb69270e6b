import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stream_iwae.iwae.artefact import Model, empty_network
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import with_channels
from stream_iwae.iwae.transform import Transform

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; `linear_gaussian` is theirs alone


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def make_rows():
    """N raw rows of the given kinds: lognormal numbers, few codes, and `missing` of them absent."""

    def make(n, kinds, seed=0, missing=0.03):
        rng = np.random.default_rng(seed)
        is_code = np.asarray(kinds) == "category"
        rows = np.where(is_code, rng.integers(0, 9, (n, len(kinds))), rng.lognormal(0, 2, (n, len(kinds))))
        rows[rng.random(rows.shape) < missing] = np.nan
        return rows

    return make


@pytest.fixture(scope="session")
def make_model():
    """A model with random weights for rows of the given kinds; `gain` makes them more decided."""

    def make(rows, kinds, settings=None, gain=2.0, seed=0):
        settings = settings or ModelSettings(hidden=(16,), latent=2, score_samples=4, device="cpu")
        transform = Transform.fit(rows, tuple(kinds))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = empty_network(transform, settings)
        weights = {name: gain * tensor for name, tensor in network.state_dict().items()}
        n_features = len(kinds)
        names = tuple(f"f{i}" for i in range(n_features))
        model = Model(
            "1.0", "digest", names, settings, transform, weights, (0.0,) * n_features, (1.0,) * n_features, seed
        )
        return with_channels(model, rows, seed) if settings.score == "combined" else model

    return make
