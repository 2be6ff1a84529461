"""Fixtures of all tests."""

from __future__ import annotations

import pytest
from hypothesis import settings

from threadline.errors import ThreadlineError
from threadline.models.store import ModelStore
from threadline.threads.fetch import fetch

# A shared machine may hold a test back for longer than hypothesis lets one example take.
settings.register_profile("threadline", deadline=None)
settings.load_profile("threadline")


@pytest.fixture(scope="session")
def models() -> ModelStore:
    """The model store of this machine with every model in it; the first run downloads 200 MB."""
    store = ModelStore()
    try:
        fetch(store)
    except ThreadlineError as error:
        pytest.fail(f"These tests need the models. {error}", pytrace=False)
    return store
