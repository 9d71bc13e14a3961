"""axe, which judges pages by WCAG."""

from functools import cache
from typing import Final

from playwright.async_api import Page

from tests.e2e.harness.tools import NODE_MODULES

SERIOUS: Final = """async (only) => {
  // A page in motion has colours that it does not keep.
  for (const each of document.getAnimations()) if (each.effect?.getComputedTiming().endTime !== Infinity) each.finish();
  const { violations } = await axe.run(document, { resultTypes: ["violations"], ...(only ? { runOnly: only } : {}) });
  return violations.filter(({ impact }) => impact === "serious" || impact === "critical").flatMap(
    ({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 200)} ${failureSummary}`));
}"""


@cache
def axe() -> str:
    return (NODE_MODULES / "axe-core/axe.min.js").read_text()


async def judge(page: Page, where: str) -> list[str]:
    """What is serious, in light; and what is to be seen worse in the dark."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(axe())
    found = await page.evaluate(SERIOUS, None)
    await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    found += await page.evaluate(SERIOUS, ["color-contrast", "link-in-text-block"])
    await page.emulate_media(color_scheme="light", reduced_motion="reduce")
    return [f"{where}: {each}" for each in found]
