import threading

import pytest

from stream_iwae.adapters.bounded_call import within


def test_what_a_call_returns_or_raises_is_passed_on():
    assert within(5.0, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        within(5.0, divmod, 7, 0)


def test_a_call_that_does_not_come_back_is_left_behind():
    is_over = threading.Event()
    with pytest.raises(TimeoutError, match="no answer within"):
        within(0.05, is_over.wait)
    is_over.set()
