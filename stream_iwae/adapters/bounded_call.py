"""Waits for a call that may not come back: a client that hangs must not hang its caller."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any


def within(timeout_s: float, call: Callable[..., Any], *arguments: Any) -> Any:
    """What `call` returns or raises, on a thread of its own, which is left behind if it takes longer.

    Raises:
        TimeoutError: It took longer.
    """
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            answers.put((call(*arguments), None))
        except BaseException as error:  # noqa: BLE001  # raised again below
            answers.put((None, error))

    threading.Thread(target=run, name=f"within-{timeout_s:g}-s", daemon=True).start()
    try:
        result, error = answers.get(timeout=timeout_s)
    except Empty:
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None
    if error is not None:
        raise error
    return result
