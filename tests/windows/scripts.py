"""A log with idle advances in it, run whole, cut into polls, or across crashes."""

from typing import NamedTuple

import polars as pl
from hypothesis import strategies as st
from plain import FEW, an_event_batch, an_operator, logs
from polars.testing import assert_frame_equal


class Advance(NamedTuple):
    """The clock moves the watermark where the log is quiet."""

    position: int
    watermark_ms: int


class Commit(NamedTuple):
    """What survives a crash, and what was published with it."""

    progress: object
    presence: dict
    n_done: int  # steps
    n_published: int  # frames


@st.composite
def scripts(draw):
    """Steps in the order they happen: events, each with what follows it, and advances."""
    steps, highest = [], None
    for event in draw(logs()):
        steps.append(event)
        highest = event.timestamp_ms if highest is None else max(highest, event.timestamp_ms)
        ahead = draw(st.sampled_from([None] * 8 + [-200, 900, 2_600, 6_000]))
        if ahead is not None:
            highest += max(ahead, 0)
            steps.append(Advance(event.offset + 1, highest + min(ahead, 0)))
    return steps


def polls(steps, cuts):
    """Group the steps into polls: runs of events end at each index in `cuts` and at each advance."""
    poll = []
    for index, step in enumerate(steps):
        if isinstance(step, Advance):
            yield index, poll
            yield index + 1, step
            poll = []
        else:
            poll.append(step)
            if index in cuts:
                yield index + 1, poll
                poll = []
    yield len(steps), poll


def take(operator, poll):
    """One poll or advance -> the frame of windows that it closed."""
    if isinstance(poll, Advance):
        return operator.advance(poll.watermark_ms, poll.position).frame
    if not poll:
        return operator.add(an_event_batch([]), 0).windows.frame
    return operator.add(an_event_batch(poll), poll[-1].offset + 1).windows.frame


def run(steps, config, cuts=frozenset()):
    """All windows of a script."""
    operator = an_operator(config, FEW)
    return together([take(operator, poll) for _, poll in polls(steps, cuts)])


def run_with_crashes(steps, config, cuts, crashes, progress_of=lambda operator, position: operator.progress(position)):
    """The same, committing after each poll; after the polls in `crashes` everything since the last commit is lost.

    A poll whose number is in `crashes` is done, not committed, and forgotten with the operator.
    """
    published, commit, number, crashes = [], None, 0, set(crashes)
    operator, done, position = an_operator(config, FEW), 0, 0
    while done < len(steps):
        for n_done, poll in list(polls(steps[done:], {cut - done for cut in cuts})):
            published.append(take(operator, poll))
            number += 1
            if number in crashes:
                operator, published = restarted(steps, config, cuts, commit, published)
                break
            if poll and not isinstance(poll, Advance):
                position = poll[-1].offset + 1
            commit = Commit(
                progress_of(operator, position), operator.presence.snapshot(), done + n_done, len(published)
            )
        done = commit.n_done if commit else 0
    return together(published)


def restarted(steps, config, cuts, commit, published):
    """A new operator that has replayed all below the committed position; what it says meanwhile is published too."""
    operator = an_operator(config, FEW)
    if commit is None:
        return operator, []
    operator.presence.restore(commit.presence)
    operator.restore(commit.progress)
    kept = published[: commit.n_published]
    replayed = [
        step
        for step in steps[: commit.n_done]
        if not isinstance(step, Advance) and commit.progress.offset <= step.offset < commit.progress.position
    ]
    moved = {(cut * 7 + 3) % (len(steps) + 1) for cut in cuts}  # a replay is polled otherwise
    for _, poll in polls(replayed, moved):
        if poll:
            kept.append(take(operator, poll))
    return operator, kept


def together(frames):
    """The frames of successive polls as one; polls that closed nothing leave no trace."""
    return pl.concat([frame for frame in frames if frame.height] or [pl.DataFrame()])


def assert_bit_equal(found, expected):
    """No tolerance: every bit of every column."""
    assert_frame_equal(found, expected, check_exact=True)
