import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; `world` is theirs alone


@pytest.fixture
def random_logs():
    import random

    from world import a_log

    return lambda seed, n_events=40: [a_log(random.Random(f"{seed}/{p}"), n_events) for p in (0, 1)]
