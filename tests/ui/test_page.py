"""The page in Chromium: typing, clicking and dropping files; light and dark mode; a phone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest
from gradio_client import Client
from PIL import Image
from requirements import CHROMIUM, IN_CI, needs_chromium

from clipgen.hashing import sha256_of
from clipgen.image_file import read_settings

from .conftest import RunningServer

if IN_CI:
    from playwright import sync_api as playwright
else:
    playwright = pytest.importorskip("playwright.sync_api")
LOW_CONTRAST = Path(__file__).with_name("low_contrast.js")
TIMEOUT = 180_000  # milliseconds, enough for a slow machine
MARKUP = "a fox <img src=x onerror=alert(1)> <b>bold</b>"

pytestmark = [needs_chromium, pytest.mark.filterwarnings("default")]


class BrowserPage:
    """The page in a browser tab; it records the hosts of all requests and all errors."""

    def __init__(self, page: playwright.Page, server: RunningServer) -> None:
        self.page = page
        self.server = server
        self.hosts: set[str] = set()
        self.errors: list[str] = []
        page.set_default_timeout(TIMEOUT)
        page.on(
            "request", lambda request: self.hosts.add(re.sub(r"^(blob|data):.*", "", request.url).split("?")[0][:99])
        )
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        self.open()

    def open(self) -> None:
        self.page.goto(self.server.url)
        self.page.wait_for_selector("body[data-ready]")

    def field(self, name: str) -> str:
        return str(self.page.input_value(f"#field-{name} :is(input, textarea) >> nth=0"))

    def open_section(self, name: str) -> None:
        """Opens a section of the form and waits for its fields, which Gradio builds only then."""
        button = self.page.get_by_role("button", name=name).first
        button.click()
        button.locator("xpath=following-sibling::*").locator(":is(input, textarea):visible").first.wait_for()
        self.wait_for_frames()

    def wait_for_frames(self) -> None:
        """Waits until the browser has drawn two frames, after which Gradio knows the values that were typed."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def wait_for_value(self, name: str, value: str) -> None:
        """Waits until a field has a value."""
        field = self.page.locator(f"#field-{name} :is(input, textarea)").first
        playwright.expect(field).to_have_value(value, timeout=TIMEOUT)

    def set(self, name: str, value: str) -> None:
        self.page.fill(f"#field-{name} :is(input, textarea) >> nth=0", value)

    def compare(self, button: str) -> None:
        """Fills in the form and presses a button of the Compare tab."""
        self.open_section("Expert")
        self.set("steps", "3")
        self.set("prompt", "a fox in snow")
        self.page.get_by_role("tab", name="Compare").click()
        self.page.click(button)

    def generate(self, prompt: str) -> None:
        """Types a prompt, presses Ctrl+Enter and waits for the finished image."""
        self.set("prompt", prompt)
        finished = self.page.query_selector("#output [data-final]")
        before = finished.get_attribute("src") if finished else ""
        self.wait_for_frames()
        self.page.keyboard.press("Control+Enter")
        self.page.wait_for_function(
            "before => (document.querySelector('#output [data-final]')?.getAttribute('src') || before) !== before",
            arg=before,
        )
        self.page.wait_for_selector("#generate")


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def browser_page(browser: playwright.Browser, server: RunningServer) -> Iterator[BrowserPage]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    opened = BrowserPage(context.new_page(), server)
    yield opened
    assert opened.errors == []
    assert {url for url in opened.hosts if url and not url.startswith(server.url)} == set()
    context.close()


def test_generate_download_and_restore_the_settings(browser_page: BrowserPage, tmp_path: Path) -> None:
    page = browser_page.page
    page.evaluate(
        """() => { window.previews = new Set(); new MutationObserver(() => {
        const preview = document.querySelector('.frame.busy img');
        if (preview) window.previews.add(preview.src);
        }).observe(document.body, { subtree: true, childList: true, attributes: true }); }"""
    )
    browser_page.open_section("Expert")
    browser_page.set("steps", "30")
    browser_page.set("seed", "7")
    browser_page.generate("a fox in snow")
    assert page.evaluate("window.previews.size") >= 2
    assert "Matches the prompt better than" in page.inner_text("#output")
    with page.expect_download() as download:
        page.click("#output a.picture")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.name == "a-fox-in-snow-7.png"
    assert (read_settings(file).settings.seed, read_settings(file).settings.steps) == (7, 30)
    assert sha256_of(file) in {sha256_of(path) for path in browser_page.server.folder.rglob("*.png")}
    browser_page.set("prompt", "something else")
    browser_page.set("seed", "")
    page.get_by_role("tab", name="Info").click()
    page.set_input_files("#info-upload input[type=file]", file)
    page.wait_for_selector("#info-output table")
    page.click("#all-info")
    for name, value in (("seed", "7"), ("prompt", "a fox in snow"), ("steps", "30")):
        browser_page.wait_for_value(name, value)


def test_stop_and_generate_again(browser_page: BrowserPage) -> None:
    browser_page.open_section("Expert")
    browser_page.set("steps", "100")
    browser_page.set("prompt", "a fox in snow")
    browser_page.page.keyboard.press("Control+Enter")
    browser_page.page.wait_for_selector("text=/step \\d+ of 100/")
    browser_page.page.keyboard.press("Escape")
    browser_page.page.wait_for_selector("#message >> text=Stopped.")
    browser_page.page.wait_for_selector("#generate")
    browser_page.set("steps", "2")
    browser_page.generate("a fox in snow")


def test_closing_the_tab_cancels_the_job(browser: playwright.Browser, server: RunningServer) -> None:
    browser_page = BrowserPage(browser.new_context().new_page(), server)
    browser_page.open_section("Expert")
    browser_page.set("steps", "150")
    browser_page.set("prompt", "a fox in snow")
    browser_page.page.keyboard.press("Control+Enter")
    browser_page.page.wait_for_selector("text=/step \\d+ of 150/")
    browser_page.page.context.close()
    client = Client(server.url, verbose=False)
    assert any(client.predict(api_name="/status")["jobs"] == 0 or sleep(0.5) for _ in range(60))


def test_keyboard_shortcuts_and_actions(browser_page: BrowserPage) -> None:
    page = browser_page.page
    browser_page.open_section("Expert")
    browser_page.set("steps", "2")
    browser_page.set("seed", "11")
    browser_page.generate("a red car in the city")
    browser_page.set("seed", "")
    browser_page.generate("a fox in snow")
    browser_page.set("prompt", "half a thought")
    page.keyboard.press("Alt+ArrowUp")
    page.keyboard.press("Alt+ArrowUp")
    browser_page.wait_for_value("prompt", "a red car in the city")
    page.keyboard.press("Alt+ArrowDown")
    page.keyboard.press("Alt+ArrowDown")
    browser_page.wait_for_value("prompt", "half a thought")
    page.evaluate("document.querySelector('#field-prompt textarea').setSelectionRange(0, 4)")
    page.keyboard.press("Control+ArrowUp")
    browser_page.wait_for_value("prompt", "(half:1.1) a thought")
    page.keyboard.press("Control+ArrowDown")
    browser_page.wait_for_value("prompt", "half a thought")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("s")
    page.wait_for_function("document.querySelector('#field-seed input, #field-seed textarea').value !== ''")
    page.keyboard.press("r")
    browser_page.wait_for_value("prompt", "a fox in snow")
    browser_page.wait_for_value("seed", "")
    page.keyboard.press("?")
    page.wait_for_selector("#keys")
    page.keyboard.press("Escape")
    page.wait_for_selector("#keys", state="hidden")
    page.click("#command-generate")
    page.wait_for_selector("#command-line-generate textarea, #command-line-generate input")
    assert page.input_value("#command-line-generate :is(textarea, input)").startswith("clipgen 'a fox in snow' --seed")
    page.keyboard.press("p")


def test_pasted_settings_are_loaded(browser_page: BrowserPage) -> None:
    browser_page.set(
        "prompt", "an owl\nNegative prompt: trees\nSteps: 25, Sampler: Euler a, CFG scale: 6, Seed: 9, Size: 128x128"
    )
    browser_page.page.wait_for_selector("#load")
    browser_page.page.keyboard.press("Control+Enter")
    browser_page.wait_for_value("prompt", "an owl")
    browser_page.page.wait_for_selector("#generate")
    browser_page.wait_for_value("negative_prompt", "trees")
    browser_page.page.wait_for_selector("#output-column >> text=noise differs")
    browser_page.set("prompt", '[settings]\nsteps = 12\nguidance = "clip"')
    browser_page.page.wait_for_selector("#load")
    browser_page.page.keyboard.press("Control+Enter")
    browser_page.page.wait_for_selector("#message >> text=schema must be 1")
    browser_page.set("prompt", 'prompt = "an owl at night"\nsteps = 12\nguidance = "clip"')
    browser_page.page.wait_for_selector("#load")
    browser_page.page.keyboard.press("Control+Enter")
    browser_page.wait_for_value("prompt", "an owl at night")
    browser_page.open_section("Guidance")
    browser_page.page.wait_for_selector("#field-guidance input[value=clip]:checked", state="attached")


def test_size_buttons_cost_and_a_guidance_image(browser_page: BrowserPage, tmp_path: Path) -> None:
    page = browser_page.page
    portrait = page.locator("#sizes label", has_text="Portrait")
    width, height = re.findall(r"\d+", portrait.inner_text())
    portrait.click()
    for name in ("Guidance", "Expert"):
        browser_page.open_section(name)
    browser_page.wait_for_value("width", width)
    browser_page.wait_for_value("height", height)
    image = tmp_path / "orange.png"
    Image.new("RGB", (64, 64), "orange").save(image)
    page.set_input_files("#field-like input[type=file]", image)
    page.wait_for_selector("#field-like_weight input")
    page.wait_for_selector("#field-guidance input[value=clip]:checked", state="attached")
    page.click("#field-guidance label:has-text('Best of several')")
    page.wait_for_selector("#cost >> text=/× as long as without CLIP guidance/")
    page.click("#field-guidance label:has-text('CLIP gradient') >> nth=0")
    browser_page.set("steps", "3")
    browser_page.generate("a fox in snow")
    page.wait_for_selector("#cost >> text=/About [\\d.]+ s per picture/")
    assert f"{width} × {height}" in page.inner_text("#output")
    saved = max(browser_page.server.folder.rglob("*.png"), key=lambda path: path.stat().st_mtime)
    assert read_settings(saved).settings.like == ("./orange.png:1",)
    page.locator("#sizes label", has_text="Square").click()
    browser_page.wait_for_value("width", "")


def test_form_and_gallery_survive_a_reload(browser_page: BrowserPage) -> None:
    browser_page.open_section("Expert")
    browser_page.set("steps", "2")
    browser_page.set("seed", "2147483648123")
    browser_page.generate("a fox in snow")
    browser_page.open()
    browser_page.wait_for_value("prompt", "a fox in snow")
    browser_page.open_section("Expert")
    browser_page.wait_for_value("seed", "2147483648123")
    browser_page.wait_for_value("steps", "2")
    browser_page.page.get_by_role("tab", name="Gallery").click()
    browser_page.page.locator("#gallery-grid .thumbnail-item").first.click()
    browser_page.page.wait_for_selector("#gallery-image figcaption >> text=a fox in snow")


def test_compare_shows_a_slider(browser_page: BrowserPage) -> None:
    page = browser_page.page
    browser_page.compare("#start-compare")
    page.wait_for_selector(".verdicts li:nth-child(3)")
    handle = page.locator("#slider .outer, #slider [role=slider], #slider .inner").first
    box = page.locator("#slider").bounding_box()
    start = handle.bounding_box()
    assert box is not None
    assert start is not None
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, start["y"] + start["height"] / 2, steps=4)
    page.mouse.up()
    assert handle.bounding_box()["x"] > start["x"] + 40
    left = page.locator("#left input:checked").get_attribute("value")
    page.keyboard.press("c")
    page.wait_for_function("left => document.querySelector('#right input:checked').value === left", arg=left)


def test_compare_strengths(browser_page: BrowserPage) -> None:
    page = browser_page.page
    browser_page.compare("#start-strengths")
    page.wait_for_selector(".scores >> text=double")
    rows = page.locator(".scores tbody th").all_inner_texts()
    assert rows == ["unguided", "quarter", "half", "guided", "double"]
    page.locator("#right").get_by_text("double").click()
    page.wait_for_function("document.querySelector('#right input:checked').value === 'double'")


def test_explain_words(browser_page: BrowserPage) -> None:
    page = browser_page.page
    browser_page.open_section("Expert")
    browser_page.set("steps", "4")
    browser_page.generate("a fox in snow")
    page.click("#words-generate")
    page.wait_for_selector(".word[data-mask]")
    page.locator(".word", has_text="snow").click()
    assert page.get_attribute(".word[aria-pressed=true]", "data-mask") == page.get_attribute("#output .mask", "src")
    assert "snow" in page.inner_text(".word[aria-pressed=true]")
    page.locator(".word", has_text="snow").click()
    assert not page.is_visible("#output .mask")


def test_vary(browser_page: BrowserPage) -> None:
    page = browser_page.page
    browser_page.open_section("Expert")
    browser_page.set("steps", "2")
    browser_page.generate("an owl at night")
    before = page.get_attribute("#output [data-final]", "src")
    page.click("#vary-generate")
    page.wait_for_selector(f"#output [data-final]:not([src='{before}'])")
    page.wait_for_selector("#output >> text=to the original picture")
    page.wait_for_selector("#vary-source >> text=the prompt is not used")
    made = max(browser_page.server.folder.rglob("*.png"), key=lambda path: path.stat().st_mtime)
    assert str(read_settings(made).settings.vary).endswith(f"{before.rpartition('/')[2]}:1")
    page.click("#vary-remove")
    page.wait_for_selector("#vary-source", state="hidden")
    browser_page.generate("an owl at night")
    made = max(browser_page.server.folder.rglob("*.png"), key=lambda path: path.stat().st_mtime)
    assert read_settings(made).settings.vary is None


def test_rank_and_describe(browser_page: BrowserPage, tmp_path: Path) -> None:
    page = browser_page.page
    pictures = [tmp_path / f"{colour}.png" for colour in ("orange", "navy")]
    for picture in pictures:
        Image.new("RGB", (64, 64), picture.stem).save(picture)
    page.get_by_role("tab", name="Ask CLIP").click()
    page.set_input_files("#clip-uploads input[type=file]", pictures)
    page.wait_for_selector("#clip-uploads >> text=navy")
    page.fill("#clip-text :is(input, textarea)", "an owl at night")
    page.click("#clip-rank")
    page.wait_for_selector(".ranked li:nth-child(2)")
    page.set_input_files("#clip-upload input[type=file]", pictures[0])
    page.wait_for_selector("#clip-image img", state="attached")
    page.click("#clip-caption")
    page.wait_for_selector("#clip-answer .caption")


def test_markup_in_a_prompt_is_shown_as_text(browser_page: BrowserPage, tmp_path: Path) -> None:
    browser_page.open_section("Expert")
    browser_page.set("steps", "1")
    browser_page.generate(MARKUP)
    assert browser_page.page.inner_text("#output figcaption") == MARKUP
    (made,) = (
        path for path in browser_page.server.folder.rglob("*.png") if read_settings(path).settings.prompt == MARKUP
    )
    renamed = tmp_path / "<img src=x onerror=alert(3)>.png"
    renamed.write_bytes(made.read_bytes())
    browser_page.page.get_by_role("tab", name="Info").click()
    browser_page.page.set_input_files("#info-upload input[type=file]", renamed)
    browser_page.page.wait_for_selector("#info-output table")
    assert MARKUP in browser_page.page.inner_text("#info-output")
    browser_page.page.get_by_role("tab", name="Gallery").click()
    browser_page.page.wait_for_selector("#gallery-grid img")
    assert browser_page.page.locator("img[src=x], #info-output b, #output b >> text=bold").count() == 0


def test_an_error_is_a_message_and_the_form_keeps_its_values(browser_page: BrowserPage) -> None:
    browser_page.open_section("Expert")
    browser_page.set("steps", "many")
    browser_page.set("prompt", "a fox in snow")
    browser_page.page.keyboard.press("Control+Enter")
    browser_page.page.wait_for_selector("#message >> text=steps must be 1 to 150, got 'many'")
    assert (browser_page.field("prompt"), browser_page.field("steps")) == ("a fox in snow", "many")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_in_light_and_dark_mode(browser: playwright.Browser, server: RunningServer, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    browser_page = BrowserPage(context.new_page(), server)
    page = browser_page.page
    for name in ("Generate", "Compare", "Ask CLIP", "Gallery", "Info"):
        page.evaluate("name => clipgen.showTab(name)", name)
        page.wait_for_selector(f"#tabs button[aria-selected=true] >> text={name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
    page.evaluate("clipgen.showTab('Generate')")
    heights = page.eval_on_selector_all(
        "#generate, #dark-mode, #keys-button", "nodes => nodes.map(n => n.offsetHeight)"
    )
    assert min(heights) >= 44
    assert page.locator("body.dark").count() == (scheme == "dark")
    assert json.loads(page.evaluate(LOW_CONTRAST.read_text("utf-8"))) == []
    page.click("#dark-mode")
    assert page.locator("body.dark").count() == (scheme == "light")
    assert browser_page.errors == []
    context.close()
