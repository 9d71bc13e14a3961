"""Three days in a few seconds; `python -m tests.taskhub.soak` takes longer, and looks at memory as well."""

import pytest

from tests.taskhub import soak


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_after_days_nothing_is_lost_and_nothing_has_grown(url: str) -> None:
    report = await soak.run(url, hours=72, seconds=6)

    assert report.growth(report.objects) < 1.15
