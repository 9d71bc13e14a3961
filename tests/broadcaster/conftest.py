"""Fixtures of the engine's tests."""

from collections.abc import AsyncIterator

import pytest

from tests.broadcaster.streams import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.open()
    yield world
    await world.broadcaster.stop()
