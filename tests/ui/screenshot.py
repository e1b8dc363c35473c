"""Makes the screenshot of the README, .github/pictures/ui.webp: `python tests/ui/screenshot.py [SEED]`.

In light mode a finished image, in dark mode the same image with the map of one word. Needs playwright and Chromium.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

TARGET = Path(__file__).parents[2] / ".github" / "pictures" / "ui.webp"
CHROMIUM, PORT = "/usr/bin/chromium", 7899
PROMPT, WORD = "a fox in snow", "fox"
SIZE, GAP = (1120, 1040), 24


def take_screenshot(browser: Browser, address: str, seed: str, scheme: str) -> Image.Image:
    """Generates an image and returns a screenshot of the page; in dark mode with a pressed word."""
    page = browser.new_context(
        viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="dark" if scheme == "dark" else "light"
    ).new_page()
    page.set_default_timeout(120_000)
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    page.get_by_role("button", name="Expert").click()
    page.wait_for_timeout(500)
    page.fill("#field-seed :is(input, textarea)", seed)
    page.get_by_role("button", name="Expert").click()
    page.fill("#field-prompt textarea", PROMPT)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#output [data-final]")
    if scheme == "dark":
        page.click("#words-generate")
        page.wait_for_selector(".word[data-mask]")
        if page.get_attribute(f".word:has-text('{WORD}')", "aria-pressed") != "true":
            page.click(f".word:has-text('{WORD}')")
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.wait_for_timeout(1_500)  # fonts, and the animation of a new image
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def main() -> None:
    """Starts a server, takes both screenshots and saves them side by side."""
    seed = sys.argv[1] if len(sys.argv) > 1 else "7"
    command = [sys.executable, "-m", "clipgen", "ui", "--no-open", "--no-history", "--port", str(PORT)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([*command, "-o", folder], stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            light, dark = (take_screenshot(browser, address, seed, scheme) for scheme in ("light", "dark"))
            browser.close()
        server.terminate()
    both = Image.new("RGB", (2 * SIZE[0] + GAP, SIZE[1]), "white")
    both.paste(light, (0, 0))
    both.paste(dark, (SIZE[0] + GAP, 0))
    both.save(TARGET, "WEBP", quality=84, method=6)
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
