"""A copy lives by itself, and a digest sees every difference that could matter: else memory would hide mistakes."""

import numpy as np
import pytest

from tests.simulation.digest import digest_of
from tests.simulation.forked import forked
from tests.simulation.logs import logs_of, stages_of
from tests.simulation.memo import _SETTLED
from tests.simulation.reference import UndisturbedRun


@pytest.fixture
def runs():
    """Undisturbed runs over the same log, each read up to the offsets given, one poll each."""

    def make(*polls, windows="tumbling", take=True):
        run = UndisturbedRun(stages_of(windows), 0)
        entries = logs_of(1, is_idle=False, is_full=windows.startswith("full"))[0].entries
        for until in polls:
            run.read(entries, until)
        if take:
            run.prefix()
        return run, entries

    return make


def content(run):
    return digest_of(run._pipeline, _SETTLED)


@pytest.mark.parametrize("windows", ["tumbling", "hopping", "record", "full"])
def test_what_happens_to_a_copy_does_not_happen_to_the_original(runs, windows):
    run, entries = runs(6, windows=windows)
    before = content(run)
    twin = forked(run)

    assert content(twin) == before
    twin.read(entries, len(entries))
    twin.prefix()
    assert content(twin) != before
    assert content(run) == before

    run.read(entries, len(entries))
    run.prefix()
    assert content(run) == content(twin)


def test_where_a_poll_cut_makes_no_difference_once_all_is_taken(runs):
    assert content(runs(3, 5, 9)[0]) == content(runs(9)[0])


def test_what_waits_to_be_published_makes_one(runs):
    assert content(runs(9, take=False)[0]) != content(runs(9)[0])


def test_every_number_that_is_kept_makes_one(runs):
    run, _ = runs(9)
    pipeline = run._pipeline
    before = content(run)
    pane = next(iter(pipeline._windows._panes.values()))
    profile = pipeline._windows.presence

    for holder, name, other in (
        (pipeline, "position", pipeline.position + 1),
        (pipeline._windows, "_watermark_ms", pipeline._windows._watermark_ms + 1),
        (pipeline._windows, "_jumps", [(1, 2)]),
        (pane, "first_offset", pane.first_offset + 1),
        (pane, "rows", pane.rows[:-1]),
        (pipeline._outcome.counts, "late", pipeline._outcome.counts.late + 1),
        (profile, "_row_of", {**profile._row_of, "somebody": 0}),
        (profile, "_is_changed", ~profile._is_changed),
    ):
        honest = getattr(holder, name)
        setattr(holder, name, other)
        assert content(run) != before, name
        setattr(holder, name, honest)
        assert content(run) == before, name


def test_an_attribute_that_nobody_knew_of_makes_one(runs):
    run, _ = runs(9)
    before = content(run)

    run._pipeline._extractor.learnt_tomorrow = {"h1": np.zeros(2)}

    assert content(run) != before
