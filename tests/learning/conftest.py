import numpy as np
import pytest

from stream_iwae.batches import TrainingBatch
from stream_iwae.learning.rows import Rows

HOUR = 3_600_000


def rows_of(n, *, n_features=2, end_ms=None, entities=None, p_values=None, first_id=0, values=None, judged=False):
    """N rows; row ids count up, everything else is ordinary."""
    rng = np.random.default_rng(first_id)
    return Rows(
        row_ids=np.arange(first_id, first_id + n, dtype=np.uint64),
        entity_ids=np.arange(n, dtype=np.uint64) if entities is None else np.asarray(entities, np.uint64),
        window_end_ms=np.asarray(np.zeros(n) if end_ms is None else end_ms, np.int64),
        values=rng.lognormal(size=(n, n_features)) if values is None else np.asarray(values, np.float64),
        scores=np.zeros(n) if judged else np.full(n, np.nan),
        p_values=np.full(n, 0.5 if judged else np.nan) if p_values is None else np.asarray(p_values, np.float64),
        in_incident=np.zeros(n, np.bool_),
        was_judged=np.full(n, judged),
    )


@pytest.fixture
def make_rows():
    return rows_of


@pytest.fixture
def make_batch():
    def make(rows, *, digest="0123456789abcdef", version="", **flags):
        return TrainingBatch(
            schema_digest=digest,
            model_version=version,
            row_ids=rows.row_ids,
            entity_ids=rows.entity_ids,
            window_end_ms=rows.window_end_ms,
            values=rows.values,
            scores=rows.scores,
            p_values=rows.p_values,
            in_incident=rows.in_incident,
            labels={},
            **flags,
        )

    return make
