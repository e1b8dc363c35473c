"""Takes the README's picture of the page again, .github/pictures/ui.webp: `python tests/ui/screenshot.py [SEED]`.

By day a finished picture, by night the same one word by word; needs playwright and Chromium.
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


def shoot(browser: Browser, address: str, seed: str, scheme: str) -> Image.Image:
    """Draws the prompt and returns the page as it then looks; by night with a word pressed."""
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
    page.wait_for_selector("#stage [data-final]")
    if scheme == "dark":
        page.click("#words-draw")
        page.wait_for_selector(".word[data-veil]")
        if page.get_attribute(f".word:has-text('{WORD}')", "aria-pressed") != "true":
            page.click(f".word:has-text('{WORD}')")
    page.mouse.move(0, 0)
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.wait_for_timeout(1_500)  # letters, and the picture's arrival
    return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


def main() -> None:
    """Serves a page of its own, takes both pictures and writes them side by side."""
    seed = sys.argv[1] if len(sys.argv) > 1 else "7"
    words = [sys.executable, "-m", "clipgen", "ui", "--no-open", "--no-history", "--port", str(PORT)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([*words, "-o", folder], stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            day, night = (shoot(browser, address, seed, scheme) for scheme in ("light", "dark"))
            browser.close()
        server.terminate()
    both = Image.new("RGB", (2 * SIZE[0] + GAP, SIZE[1]), "white")
    both.paste(day, (0, 0))
    both.paste(night, (SIZE[0] + GAP, 0))
    both.save(TARGET, "WEBP", quality=84, method=6)
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
