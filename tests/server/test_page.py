"""The page of a server in a browser: find items, make a history of them, see what is recommended."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.torch_impl import Recommender

from tests.server.walks import served

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
IMAGE = os.environ.get("CCE_MINUS_PAGE_IMAGE")
"""Where the picture of the documentation goes, if one is wanted."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


class Visit:
    """A page in a browser and what went wrong on it."""

    def __init__(self, page: Any) -> None:
        self.page, self.wrong, self.urls = page, list[str](), list[str]()
        self._expect = importlib.import_module("playwright.sync_api").expect
        page.on("console", lambda message: self.wrong.append(message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("requestfailed", lambda request: self.wrong.append(request.url))
        page.on("request", lambda request: self.urls.append(request.url))

    def find(self, text: str) -> None:
        self.page.get_by_label("Part of a title, or an id").fill(text)

    def add(self, title: str) -> None:
        self.page.get_by_role("button", name=f"Add {title} to the history", exact=True).click()

    def texts(self, selector: str, count: int) -> list[str]:
        """Those of as many elements, once there are so many."""
        self._expect(self.page.locator(selector)).to_have_count(count, timeout=20_000)
        return self.page.locator(selector).all_inner_texts()

    def until(self, selector: str, text: str) -> None:
        """Waits until the first such element has this ``text``."""
        self._expect(self.page.locator(selector).first).to_have_text(text, timeout=20_000)


@pytest.fixture
def visit() -> Iterator[Visit]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as playwright:
        # root, as in containers, has no sandbox
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 640}, device_scale_factor=1)
        page.set_default_timeout(20_000)
        yield Visit(page)
        browser.close()


def test_a_history_by_clicks(films: Path, visit: Visit):
    expected = Recommender.load(films, device="cpu").recommend(sequences=[["f07", "f09"]], k=10)
    with served(films) as server:
        visit.page.goto(server.url)
        visit.until("h1", "monday")
        about = visit.page.locator("#about").inner_text()
        for text in ("sasrec", "events.parquet", "40", "Epochs trained", "Test NDCG@10", "torch"):
            assert text in about
        assert len(visit.texts("#found li", 12)) == 12
        visit.find("FILM <b>07")
        assert visit.texts("#found li", 1) == ["Film <b>07</b> (1967)"]  # as text, not as HTML
        visit.add("Film <b>07</b> (1967)")
        visit.find("f09")
        visit.add("Film <b>09</b> (1969)")
        history = visit.texts("#history li > span", 2)
        assert history == ["Film <b>07</b> (1967)", "Film <b>09</b> (1969)"]
        visit.until("#best li > span", expected["title"][0].as_py())
        assert visit.texts("#best li > span:first-child", 10) == expected["title"].to_pylist()
        scores = [float(text) for text in visit.texts("#best .score", 10)]
        assert scores == pytest.approx(expected["score"].to_pylist(), abs=6e-4)
        visit.page.get_by_role("button", name="Remove Film <b>07</b> (1967) from the history", exact=True).click()
        assert visit.texts("#history li > span", 1) == ["Film <b>09</b> (1969)"]
        visit.page.get_by_role("button", name="Clear").click()
        visit.texts("#best li", 0)
        visit.find("no such film")
        visit.until("#find-told", "No such item.")
        assert visit.wrong == []
        assert all(url.startswith((server.url, "data:")) for url in visit.urls)


def test_all_can_be_done_with_the_keyboard(films: Path, visit: Visit):
    with served(films) as server:
        visit.page.goto(server.url)
        visit.texts("#found li", 12)
        visit.page.keyboard.press("Tab")
        visit.page.keyboard.type("f07")
        visit.texts("#found li", 1)
        visit.page.keyboard.press("Tab")
        visit.page.keyboard.press("Enter")
        assert visit.texts("#history li > span", 1) == ["Film <b>07</b> (1967)"]
        for field in visit.page.locator("input, button").all():
            named = "e => Boolean(e.labels.length || e.getAttribute('aria-label') || e.textContent)"
            assert field.evaluate(named)


def test_ids_beyond_what_a_number_of_the_page_holds(tmp_path: Path, visit: Visit):
    first = 2**60 + 1
    items = [first + (user + step) % 12 for user in range(30) for step in range(8)]
    users = [user for user in range(30) for _ in range(8)]
    events = pa.table({"user_id": users, "item_id": items, "timestamp": list(range(8)) * 30})
    pq.write_table(events, tmp_path / "events.parquet")
    options: dict[str, Any] = {"max_length": 8, "dim": 16, "negatives": "all", "epochs": 1, "device": "cpu"}
    Recommender(**options, out=str(tmp_path / "large")).fit(str(tmp_path / "events.parquet"))
    with served(tmp_path / "large") as server:
        visit.page.goto(server.url)
        visit.find(str(first + 3))
        assert visit.texts("#found li", 1) == [str(first + 3)]
        visit.add(str(first + 3))
        best = visit.texts("#best li > span:first-child", 10)
        assert {int(item) for item in best} <= {*range(first, first + 12)} - {first + 3}
        assert visit.wrong == []


def test_a_page_that_is_opened_while_the_run_is_loaded(films: Path, visit: Visit):
    with served(films) as server:
        page = visit.page
        loading = '{"error": "run: expected one that is loaded, got one that is being loaded"}'
        page.route("**/health", lambda route: route.fulfill(status=503, body=loading), times=1)
        page.goto(server.url)
        visit.until("h1", "monday")
        assert len(visit.texts("#found li", 12)) == 12
        visit.until("#find-told", "")


def test_no_other_script_is_run(films: Path, visit: Visit):
    with served(films) as server:
        visit.page.goto(server.url)
        visit.until("h1", "monday")
        assert visit.wrong == []
        visit.page.evaluate(
            """() => { const made = document.createElement("script"); made.textContent = "window.ran = 1";
            document.body.append(made); }"""
        )
        assert visit.page.evaluate("() => window.ran") is None
        assert "Content Security Policy" in visit.wrong[0]


@pytest.mark.skipif(IMAGE is None, reason="makes the picture of the documentation: CCE_MINUS_PAGE_IMAGE=FILE")
def test_picture(tmp_path: Path, visit: Visit):
    assert IMAGE is not None
    options: dict[str, Any] = {"max_length": 50, "epochs": 10, "device": "cpu", "out": str(tmp_path / "films")}
    Recommender(**options).fit("ml-100k")
    with served(tmp_path / "films") as server:
        visit.page.goto(server.url)
        for title in ("Star Wars (1977)", "Star Trek: The Wrath of Khan (1982)", "Stargate (1994)"):
            visit.find("star")
            visit.add(title)
        visit.texts("#history li", 3)
        visit.texts("#best li", 10)
        visit.page.mouse.move(0, 0)
        visit.page.wait_for_timeout(300)
        visit.page.screenshot(path=IMAGE, full_page=True)
    assert visit.wrong == []
