import pytest

from tests.simulation.logs import SOON_MATURE


@pytest.fixture(autouse=True)
def soon_mature(monkeypatch):
    for module, name, value in SOON_MATURE:
        monkeypatch.setattr(module, name, value)
