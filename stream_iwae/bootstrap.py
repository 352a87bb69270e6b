"""Composition root: Config -> adapters + pipeline -> a running service, trainer or replay."""

from typing import Final

TRAINER_RESTART_S: Final = (1, 5, 30, 60)  # waits before a dead trainer is started again
