"""The page with the timeline of the tests here: in each frontend there is, on the canvas and in Vue nodes."""

from __future__ import annotations

import pytest
from support.frontend import EXTENSIONS, MOUNT, opened, static_folders
from support.timeline import Browser


@pytest.fixture(scope="module", params=static_folders() or [None], ids=lambda p: p and p.parent.name)
def started(request):
    browser = Browser()
    with opened(request.param, extensions=EXTENSIONS, prepare=browser.prepare) as browser.page:
        yield browser


@pytest.fixture(params=["canvas", "vue"])
def browser(started, request):
    started.vue = request.param == "vue"
    if started.vue and started.page.evaluate("() => __COMFYUI_FRONTEND_VERSION__").startswith("1.27"):
        pytest.skip("the Vue nodes of 1.27 were an experiment that shows no DOM widgets at all")
    started.load()
    yield started
    assert not [problem for problem in started.problems if MOUNT in problem]
