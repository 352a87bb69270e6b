import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain import CONFIGS, REPEATED
from polars.testing import assert_frame_equal
from scripts import assert_bit_equal, run, scripts

from stream_iwae.windows import panes

CUTS = st.sets(st.integers(0, 80))


@REPEATED
@given(scripts(), CONFIGS, CUTS)
def test_cutting_the_log_anywhere_changes_no_bit_of_any_window(steps, config, cuts):
    assert_bit_equal(run(steps, config, cuts), run(steps, config))


@REPEATED
@given(scripts(), CONFIGS)
def test_single_events_give_the_windows_of_one_poll(steps, config):
    assert_bit_equal(run(steps, config, set(range(len(steps)))), run(steps, config))


@REPEATED
@given(scripts(), CONFIGS, CUTS, st.integers(1, 5))
def test_cutting_the_log_changes_no_bit_where_chunks_are_reduced(steps, config, cuts, chunk_rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panes, "CHUNK_ROWS", chunk_rows)
        assert_bit_equal(run(steps, config, cuts), run(steps, config))


@REPEATED
@given(scripts(), CONFIGS, st.integers(1, 5))
def test_reducing_chunks_changes_last_bits_and_quantiles_by_one_percent_alone(steps, config, chunk_rows):
    whole = run(steps, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panes, "CHUNK_ROWS", chunk_rows)
        chunked = run(steps, config)
    if not whole.height:
        assert not chunked.height
        return
    assert_frame_equal(chunked.drop("median"), whole.drop("median"), rel_tol=1e-9, abs_tol=1e-9)
    assert_frame_equal(chunked.select("median"), whole.select("median"), rel_tol=0.0101, abs_tol=0)
