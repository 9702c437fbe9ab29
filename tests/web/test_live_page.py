"""The page of `helios generate --live` in a browser: it plays while the video grows, and says how far behind it is."""

from __future__ import annotations

import re

import pytest
from helios_video.helios_core.commands.live import live
from helios_video.helios_core.join import Clip
from support.clips import numbered
from support.frontend import ARGUMENTS, CHROMIUM

TIME = "() => document.querySelector('video').currentTime"


def test_the_page_plays_what_is_there_and_goes_on_with_what_comes(tmp_path, capsys):
    if CHROMIUM is None:
        pytest.skip("no chromium: install Debian's chromium, or name one in HELIOS_CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright to drive chromium with")
    with live(0, 24) as shown, playwright.sync_playwright() as driver:
        address = re.search(r"http://[\d.:]+", capsys.readouterr().err)[0]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page, problems = browser.new_page(), []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        page.wait_for_timeout(500)
        assert page.locator("p").inner_text() == "Waiting for the first chunk."
        shown.clip = Clip.new(tmp_path).append(numbered(33))
        page.wait_for_function(f"() => ({TIME})() > 1.3", timeout=20_000)
        assert "of 1.4 s" in page.locator("p").inner_text() and "behind" in page.locator("p").inner_text()
        shown.clip = shown.clip.append(numbered(33))
        page.wait_for_function(f"() => ({TIME})() > 1.6", timeout=20_000)
        shown.ended = True
        page.wait_for_function("() => document.querySelector('video').ended", timeout=20_000)
        assert "The video is made." in page.locator("p").inner_text() and not problems
        browser.close()
