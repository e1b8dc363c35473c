"""The page in a real browser: what one types, presses, drops and sees, by day, by night and on a phone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest
from gradio_client import Client
from PIL import Image

from clipgen.image_file import digest_of, read_settings

from .conftest import Server

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-headless-shell", "google-chrome"))), None)
CONTRASTS = Path(__file__).with_name("contrasts.js")
TIMEOUT = 180_000  # ms; a slow machine is no fault of the page
EVIL = "a fox <img src=x onerror=alert(1)> <b>bold</b>"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
    pytest.mark.filterwarnings("default"),
]


class Visit:
    """One page in a browser, which notes each request and each complaint."""

    def __init__(self, page: playwright.Page, server: Server) -> None:
        self.page = page
        self.server = server
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        page.set_default_timeout(TIMEOUT)
        page.on(
            "request", lambda request: self.hosts.add(re.sub(r"^(blob|data):.*", "", request.url).split("?")[0][:99])
        )
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.open()

    def open(self) -> None:
        self.page.goto(self.server.url)
        self.page.wait_for_selector("body[data-ready]")

    def field(self, name: str) -> str:
        return str(self.page.input_value(f"#field-{name} :is(input, textarea) >> nth=0"))

    def unfold(self, name: str) -> None:
        """Opens a fold, and waits for what is in it, which is built then."""
        button = self.page.get_by_role("button", name=name).first
        button.click()
        button.locator("xpath=following-sibling::*").locator(":is(input, textarea):visible").first.wait_for()
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def shows(self, name: str, value: str) -> None:
        """Waits until a field says something."""
        field = self.page.locator(f"#field-{name} :is(input, textarea)").first
        playwright.expect(field).to_have_value(value, timeout=TIMEOUT)

    def set(self, name: str, value: str) -> None:
        self.page.fill(f"#field-{name} :is(input, textarea) >> nth=0", value)

    def compare(self, button: str) -> None:
        """Has a fox drawn in few steps, several ways."""
        self.unfold("Expert")
        self.set("steps", "3")
        self.set("prompt", "a fox in snow")
        self.page.get_by_role("tab", name="Compare").click()
        self.page.click(button)

    def draw(self, prompt: str) -> None:
        """Types a prompt, presses Ctrl+Enter and waits for the picture."""
        self.set("prompt", prompt)
        finished = self.page.query_selector("#stage [data-final]")
        before = finished.get_attribute("src") if finished else ""
        self.page.keyboard.press("Control+Enter")
        self.page.wait_for_function(
            "before => (document.querySelector('#stage [data-final]')?.getAttribute('src') || before) !== before",
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
def visit(browser: playwright.Browser, server: Server) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    made = Visit(context.new_page(), server)
    yield made
    assert made.complaints == []
    assert {url for url in made.hosts if url and not url.startswith(server.url)} == set()
    context.close()


def test_from_prompt_to_file_and_back(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    page.evaluate(
        """() => { window.seen = new Set(); new MutationObserver(() => {
        const preview = document.querySelector('.frame.busy img');
        if (preview) window.seen.add(preview.src);
        }).observe(document.body, { subtree: true, childList: true, attributes: true }); }"""
    )
    visit.unfold("Expert")
    visit.set("steps", "30")
    visit.set("seed", "7")
    visit.draw("a fox in snow")
    assert page.evaluate("window.seen.size") >= 2
    assert "Matches its words better than" in page.inner_text("#stage")
    with page.expect_download() as download:
        page.click("#stage a.picture")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert file.name == "a-fox-in-snow-7.png"
    assert (read_settings(file).settings.seed, read_settings(file).settings.steps) == (7, 30)
    assert digest_of(file) in {digest_of(path) for path in visit.server.folder.rglob("*.png")}
    visit.set("prompt", "something else")
    visit.set("seed", "")
    page.get_by_role("tab", name="Info").click()
    page.set_input_files("#drop input[type=file]", file)
    page.wait_for_selector("#found table")
    page.click("#all-info")
    for name, value in (("seed", "7"), ("prompt", "a fox in snow"), ("steps", "30")):
        visit.shows(name, value)


def test_stop_and_the_next_picture(visit: Visit) -> None:
    visit.unfold("Expert")
    visit.set("steps", "100")
    visit.set("prompt", "a fox in snow")
    visit.page.keyboard.press("Control+Enter")
    visit.page.wait_for_selector("text=/step \\d+ of 100/")
    visit.page.keyboard.press("Escape")
    visit.page.wait_for_selector("#message >> text=Stopped.")
    visit.page.wait_for_selector("#generate")
    visit.set("steps", "2")
    visit.draw("a fox in snow")


def test_a_visitor_who_leaves_frees_the_line(browser: playwright.Browser, server: Server) -> None:
    visit = Visit(browser.new_context().new_page(), server)
    visit.unfold("Expert")
    visit.set("steps", "150")
    visit.set("prompt", "a fox in snow")
    visit.page.keyboard.press("Control+Enter")
    visit.page.wait_for_selector("text=/step \\d+ of 150/")
    visit.page.context.close()
    programme = Client(server.url, verbose=False)
    assert any(programme.predict(api_name="/status")["jobs"] == 0 or sleep(0.5) for _ in range(60))


def test_recall_keys_and_help(visit: Visit) -> None:
    page = visit.page
    visit.unfold("Expert")
    visit.set("steps", "2")
    visit.set("seed", "11")
    visit.draw("a red car in the city")
    visit.set("seed", "")
    visit.draw("a fox in snow")
    visit.set("prompt", "half a thought")
    page.keyboard.press("Alt+ArrowUp")
    page.keyboard.press("Alt+ArrowUp")
    visit.shows("prompt", "a red car in the city")
    page.keyboard.press("Alt+ArrowDown")
    page.keyboard.press("Alt+ArrowDown")
    visit.shows("prompt", "half a thought")
    page.evaluate("document.querySelector('#field-prompt textarea').setSelectionRange(0, 4)")
    page.keyboard.press("Control+ArrowUp")
    visit.shows("prompt", "(half:1.1) a thought")
    page.keyboard.press("Control+ArrowDown")
    visit.shows("prompt", "half a thought")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("s")
    page.wait_for_function("document.querySelector('#field-seed input, #field-seed textarea').value !== ''")
    page.keyboard.press("r")
    visit.shows("prompt", "a fox in snow")
    visit.shows("seed", "")
    page.keyboard.press("?")
    page.wait_for_selector("#keys")
    page.keyboard.press("Escape")
    page.wait_for_selector("#keys", state="hidden")
    page.click("#command-draw")
    page.wait_for_selector("#line-draw textarea, #line-draw input")
    assert page.input_value("#line-draw :is(textarea, input)").startswith("clipgen 'a fox in snow' --seed")
    page.keyboard.press("p")


def test_a_pasted_block_becomes_settings(visit: Visit) -> None:
    visit.set(
        "prompt", "an owl\nNegative prompt: trees\nSteps: 25, Sampler: Euler a, CFG scale: 6, Seed: 9, Size: 128x128"
    )
    visit.page.wait_for_selector("#load")
    visit.page.keyboard.press("Control+Enter")
    visit.shows("prompt", "an owl")
    visit.page.wait_for_selector("#generate")
    visit.shows("negative_prompt", "trees")
    visit.page.wait_for_selector("#easel >> text=noise differs")
    visit.set("prompt", '[settings]\nsteps = 12\nguidance = "clip"')
    visit.page.wait_for_selector("#load")
    visit.page.keyboard.press("Control+Enter")
    visit.page.wait_for_selector("#message >> text=schema must be 1")
    visit.set("prompt", 'prompt = "an owl at night"\nsteps = 12\nguidance = "clip"')
    visit.page.wait_for_selector("#load")
    visit.page.keyboard.press("Control+Enter")
    visit.shows("prompt", "an owl at night")
    visit.unfold("Guidance")
    visit.page.wait_for_selector("#field-guidance input[value=clip]:checked", state="attached")


def test_size_price_and_a_picture_to_be_like(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    page.click("#sizes >> text=Portrait 112 × 144")
    for fold in ("Guidance", "Expert"):
        visit.unfold(fold)
    visit.shows("width", "112")
    visit.shows("height", "144")
    picture = tmp_path / "orange.png"
    Image.new("RGB", (64, 64), "orange").save(picture)
    page.set_input_files("#field-like input[type=file]", picture)
    page.wait_for_selector("#field-like_weight input")
    page.wait_for_selector("#field-guidance input[value=clip]:checked", state="attached")
    page.click("#field-guidance label:has-text('Best of several')")
    page.wait_for_selector("#price >> text=/× as long as without CLIP/")
    page.click("#field-guidance label:has-text('Steer') >> nth=0")
    visit.set("steps", "3")
    visit.draw("a fox in snow")
    page.wait_for_selector("#price >> text=/About [\\d.]+ s a picture/")
    assert "112 × 144" in page.inner_text("#stage") + page.inner_text("#easel")
    made = max(visit.server.folder.rglob("*.png"), key=lambda path: path.stat().st_mtime)
    assert read_settings(made).settings.like == ("./orange.png:1",)
    page.click("#sizes >> text=Square 128 × 128")
    visit.shows("width", "")


def test_the_form_survives_a_reload_and_so_does_the_gallery(visit: Visit) -> None:
    visit.unfold("Expert")
    visit.set("steps", "2")
    visit.set("seed", "2147483648123")
    visit.draw("a fox in snow")
    visit.open()
    visit.shows("prompt", "a fox in snow")
    visit.unfold("Expert")
    visit.shows("seed", "2147483648123")
    visit.shows("steps", "2")
    visit.page.get_by_role("tab", name="Gallery").click()
    visit.page.locator("#wall .thumbnail-item").first.click()
    visit.page.wait_for_selector("#viewer figcaption >> text=a fox in snow")


def test_compare_slides(visit: Visit) -> None:
    page = visit.page
    visit.compare("#start-compare")
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


def test_the_dial_turns(visit: Visit) -> None:
    page = visit.page
    visit.compare("#start-dial")
    page.wait_for_selector(".verdict >> text=double")
    rows = page.locator(".verdict tbody th").all_inner_texts()
    assert rows == ["unguided", "quarter", "half", "guided", "double"]
    page.locator("#right").get_by_text("double").click()
    page.wait_for_function("document.querySelector('#right input:checked').value === 'double'")


def test_a_word_shows_its_map(visit: Visit) -> None:
    page = visit.page
    visit.unfold("Expert")
    visit.set("steps", "4")
    visit.draw("a fox in snow")
    page.click("#words-draw")
    page.wait_for_selector(".word[data-veil]")
    page.locator(".word", has_text="snow").click()
    assert page.get_attribute(".word[aria-pressed=true]", "data-veil") == page.get_attribute("#stage .veil", "src")
    assert "snow" in page.inner_text(".word[aria-pressed=true]")
    page.locator(".word", has_text="snow").click()
    assert not page.is_visible("#stage .veil")


def test_a_variation_where_the_model_draws_them(visit: Visit) -> None:
    page = visit.page
    visit.unfold("Expert")
    visit.set("steps", "2")
    visit.draw("an owl at night")
    before = page.get_attribute("#stage [data-final]", "src")
    page.click("#vary-draw")
    page.wait_for_selector(f"#stage [data-final]:not([src='{before}'])")
    page.wait_for_selector("#stage >> text=to the picture it varies")
    page.wait_for_selector("#source >> text=your words do not count")
    made = max(visit.server.folder.rglob("*.png"), key=lambda path: path.stat().st_mtime)
    assert str(read_settings(made).settings.vary).endswith(f"{before.rpartition('/')[2]}:1")
    page.click("#words-only")
    page.wait_for_selector("#source", state="hidden")
    visit.draw("an owl at night")
    made = max(visit.server.folder.rglob("*.png"), key=lambda path: path.stat().st_mtime)
    assert read_settings(made).settings.vary is None


def test_clip_ranks_and_describes(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    pictures = [tmp_path / f"{colour}.png" for colour in ("orange", "navy")]
    for picture in pictures:
        Image.new("RGB", (64, 64), picture.stem).save(picture)
    page.get_by_role("tab", name="Ask CLIP").click()
    page.set_input_files("#ask-pictures input[type=file]", pictures)
    page.wait_for_selector("#ask-pictures >> text=navy")
    page.fill("#ask-text :is(input, textarea)", "an owl at night")
    page.click("#ask-rank")
    page.wait_for_selector(".ranked li:nth-child(2)")
    page.set_input_files("#ask-picture input[type=file]", pictures[0])
    page.wait_for_selector("#brought img", state="attached")
    page.click("#ask-caption")
    page.wait_for_selector("#answer .caption")


def test_markup_is_shown_as_text(visit: Visit, tmp_path: Path) -> None:
    visit.unfold("Expert")
    visit.set("steps", "1")
    visit.draw(EVIL)
    assert visit.page.inner_text("#stage figcaption") == EVIL
    (made,) = (path for path in visit.server.folder.rglob("*.png") if read_settings(path).settings.prompt == EVIL)
    renamed = tmp_path / "<img src=x onerror=alert(3)>.png"
    renamed.write_bytes(made.read_bytes())
    visit.page.get_by_role("tab", name="Info").click()
    visit.page.set_input_files("#drop input[type=file]", renamed)
    visit.page.wait_for_selector("#found table")
    assert EVIL in visit.page.inner_text("#found")
    visit.page.get_by_role("tab", name="Gallery").click()
    visit.page.wait_for_selector("#wall img")
    assert visit.page.locator("img[src=x], #found b, #stage b >> text=bold").count() == 0


def test_errors_come_as_words_and_lose_nothing(visit: Visit) -> None:
    visit.unfold("Expert")
    visit.set("steps", "many")
    visit.set("prompt", "a fox in snow")
    visit.page.keyboard.press("Control+Enter")
    visit.page.wait_for_selector("#message >> text=steps must be 1 to 150, got 'many'")
    assert (visit.field("prompt"), visit.field("steps")) == ("a fox in snow", "many")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_by_day_and_by_night(browser: playwright.Browser, server: Server, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    visit = Visit(context.new_page(), server)
    page = visit.page
    for name in ("Draw", "Compare", "Ask CLIP", "Gallery", "Info"):
        page.evaluate("name => clipgen.show(name)", name)
        page.wait_for_selector(f"#tabs button[aria-selected=true] >> text={name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, name
    page.evaluate("clipgen.show('Draw')")
    heights = page.eval_on_selector_all("#generate, #night, #keys-button", "nodes => nodes.map(n => n.offsetHeight)")
    assert min(heights) >= 44
    assert page.locator("body.dark").count() == (scheme == "dark")
    assert json.loads(page.evaluate(CONTRASTS.read_text("utf-8"))) == []
    page.click("#night")
    assert page.locator("body.dark").count() == (scheme == "light")
    assert visit.complaints == []
    context.close()
