"""Three days in a few seconds; `python -m tests.taskhub.soak` takes longer, and judges memory as well."""

import asyncio

import pytest

from tests.taskhub import soak


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_after_days_nothing_is_lost_and_nothing_is_left(url: str) -> None:
    before = asyncio.all_tasks()

    await soak.run(url, hours=72, seconds=6)

    assert asyncio.all_tasks() == before
