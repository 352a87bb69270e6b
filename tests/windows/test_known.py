"""Who is known is the same when it is asked later, of what later waves have added to: a replay does that."""

import random

import numpy as np
import pytest

from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.presence import Presence

STEP_MS = 10_000
CONFIG = WindowsConfig.model_validate({"size": "10s", "grace": "0s", "present_history": 2, "absent_windows": 2})


def known(presence, entities, known_at, closed, end):
    return presence.known(entities, known_at * STEP_MS, closed * STEP_MS, end * STEP_MS).tolist()


@pytest.mark.parametrize("seed", range(20))
def test_a_later_look_finds_those_who_were_known_then(seed):
    rng = random.Random(seed)
    presence, entities = Presence(CONFIG), [f"h{i}" for i in range(12)]
    habits = {entity: rng.choice((0.05, 0.3, 0.6, 0.95)) for entity in entities}
    asked, n_known, n_unlike = {}, 0, 0
    for wave in range(1, 110):
        there = [entity for entity in entities if rng.random() < habits[entity]]
        presence.wave(wave * STEP_MS, there, [""] * len(there))
        for then, answers in asked.items():
            for end, answer in answers.items():
                if end > wave:  # its window is still open, so a replay may ask
                    assert known(presence, entities, then, wave, end) == answer
                    n_unlike += known(presence, entities, wave, wave, end) != answer
        asked[wave] = {wave + k: known(presence, entities, wave, wave, wave + k) for k in (1, 2, 5, 20)}
        n_known += sum(map(sum, asked[wave].values()))
    assert n_known > 50
    assert n_unlike > 50  # what later waves have shown would have given another answer


def test_nobody_is_known_who_may_be_forgotten_before_the_window_closes():
    presence = Presence(CONFIG)
    presence.wave(STEP_MS, ["once"], [""])

    assert known(presence, ["once", "never"], 1, 1, 2) == [True, False]
    assert known(presence, ["once"], 1, 1, 3) == [True]
    assert known(presence, ["once"], 1, 1, 4) == [False]
    assert known(presence, ["once"], 1, 1, 1 + 32) == [False]
    assert known(Presence(CONFIG), ["once"], 1, 1, 2) == [False]


def test_a_regular_that_is_away_for_a_while_is_still_known():
    presence = Presence(CONFIG)
    for wave in range(1, 11):
        presence.wave(wave * STEP_MS, ["regular"], [""])
    for wave in range(11, 15):
        presence.wave(wave * STEP_MS, [], [])

    assert known(presence, ["regular"], 14, 14, 15) == [True]
    assert np.all(presence.known([], 0, 0, 0) == np.array([], dtype=bool))
