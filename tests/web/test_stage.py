"""The timeline while a run goes on, in ComfyUI's real frontend, with a server of the test's own that says how it
stands: what is sent and when, what is refused, and to which run an edit goes."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest
from support.timeline import QUEUED, RED

TEXT = f"0: {RED}\n6: a bird"
STATES = "() => [...document.querySelectorAll('.helios-state')].map(e => e.dataset.state)"


class Runs:
    """What the routes of the server answer: one run, whose score takes what is posted unless `refusal` says why not."""

    def __init__(self, browser):
        self.browser, self.posted, self.refusal, self.names = browser, [], None, 0
        self.own = uuid4()
        browser.page.route("**/api/helios/**", self.answer)
        browser.page.route("**/api/prompt", self.queue)

    def queue(self, route):
        self.names += 1
        route.fulfill(json={"prompt_id": self.run, "number": self.names, "node_errors": {}})

    @property
    def run(self) -> str:
        return f"{self.own}-{self.names}"

    def begin(self, text: str = TEXT, begun: int = 2) -> None:
        self.browser.page.evaluate("() => app.queuePrompt(0)")
        self.score = {"text": text, "first": text, "edits": 0, "begun": begun, "done": begun - 1, "total": 8}
        self.score |= {"paused": False, "ended": False, "chunks": []}
        self.tell()

    def tell(self, **changes) -> None:
        self.score |= changes
        self.browser.send("helios-video.score", prompt=self.run, node="5", **self.score)
        self.browser.page.wait_for_timeout(150)

    def film(self, chunks: int) -> None:
        told = {"run": self.run, "film": 0, "node": "9", "schedule": "5", "first": 0, "over": False, "chunks": chunks}
        told |= {"frames": [33] * chunks, "fps": 24.0, "text": self.score["text"], "width": 64, "height": 64}
        self.browser.send("helios-video.film", **told)
        self.browser.page.wait_for_timeout(150)

    def over(self) -> None:
        self.browser.send("execution_success", prompt_id=self.run, timestamp=0)
        self.browser.page.wait_for_timeout(150)

    def answer(self, route):
        verb, body = route.request.url.rsplit("/", 1)[1], route.request.post_data_json
        if body is not None:
            self.posted.append((verb, body))
        if verb == "write":
            return route.fulfill(json={"text": body["text"].replace("\n8", f"\n7 [seed {body['seed']}]:\n8")})
        if verb == "score" and self.refusal:
            return route.fulfill(status=409, json={"error": self.refusal})
        if verb == "score":
            self.score |= {"text": body["text"], "edits": self.score["edits"] + 1}
        if verb in ("pause", "go_on"):
            self.score["paused"] = verb == "pause"
        if verb == "stop":
            self.score |= {"text": f"{self.score['text']}\n8 [end]:", "edits": self.score["edits"] + 1, "paused": False}
        if verb == "runs":
            return route.fulfill(json={"runs": []})
        return route.fulfill(json=self.score)


@pytest.fixture
def runs(browser):
    browser.load(TEXT)
    found = Runs(browser)
    yield found
    found.over()
    browser.page.unroute("**/api/helios/**")
    browser.page.unroute("**/api/prompt")


def test_an_edit_goes_to_the_run_once_with_what_it_was_made_from(browser, runs):
    page = browser.page
    browser.drag("[data-cue='1'] .helios-edge", -1)
    page.wait_for_timeout(600)
    assert not runs.posted and not page.evaluate(STATES), "without a run nothing is sent"
    now = TEXT.replace("6:", "5:")
    runs.begin(now)
    assert page.evaluate(STATES) == ["done", "working", "waiting"] and browser.cells() == 8
    assert page.locator(".helios-note").inner_text() == "Chunk 1 is in work; 1 of 8 are made."
    browser.drag("[data-cue='1'] .helios-edge", 1)
    page.wait_for_timeout(700)
    assert runs.posted == [("score", {"text": TEXT, "base": now})]
    page.keyboard.press("Control+z")
    page.wait_for_function("text => area().value == text", arg=now)
    page.wait_for_timeout(900)
    assert runs.posted[1:] == [("score", {"text": now, "base": TEXT})], "an undone edit is undone in the run"
    assert page.evaluate(QUEUED) == {"text": now}


def test_half_a_prompt_is_not_sent_and_the_page_of_before_is_not_written_over(browser, runs):
    page = browser.page
    runs.begin()
    page.locator("[data-cue='1']").focus()
    page.locator(".helios-row textarea").fill("a bi")
    runs.tell(done=2, begun=3)
    page.wait_for_timeout(2500)
    assert not runs.posted and browser.text.endswith("6: a bi")
    page.locator(".helios-row textarea").fill("a big bird")
    page.locator("[data-cue='0']").focus()
    page.wait_for_timeout(700)
    assert [body["text"] for _, body in runs.posted] == [TEXT.replace("bird", "big bird")]
    runs.tell(text=TEXT, edits=0)  # told before the edit, and come after it
    assert browser.text.endswith("6: a big bird")
    runs.tell(text=TEXT + "\n7 [end]:", edits=2)
    assert browser.text == TEXT + "\n7 [end]:", "what someone else changed"


def test_what_is_refused_is_said_and_taken_back(browser, runs):
    page = browser.page
    runs.begin()
    runs.refusal = "chunk 1 is in work: to change it needs a retake"
    page.locator("[data-cue='0']").focus()
    page.locator(".helios-row textarea").fill("a cat")
    page.locator("[data-cue='1']").focus()
    page.wait_for_selector(".helios-note.helios-bad")
    assert page.locator(".helios-note").inner_text() == runs.refusal and browser.text == TEXT
    runs.refusal = None
    page.locator("[data-cue='1']").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(700)
    assert not page.locator(".helios-note.helios-bad").count() and browser.text == TEXT.replace("6:", "7:")


def test_pause_and_another_take_by_the_keys(browser, runs):
    page = browser.page
    runs.begin()
    for name, verb in [("Pause", "pause"), ("Go on", "go_on"), ("Pause", "pause")]:
        page.wait_for_function("name => document.activeElement.textContent == name || name == 'Pause'", arg=name)
        page.locator(".helios-bar button", has_text=name).focus()
        page.keyboard.press("Enter")
        page.wait_for_timeout(300)
        assert runs.posted[-1] == (verb, {})
    assert page.locator(".helios-note").inner_text() == "Pauses after chunk 1."
    page.locator(".helios-bar button", has_text="Stop and keep").press("Enter")
    page.wait_for_function("text => area().value == text", arg=f"{TEXT}\n8 [end]:")
    page.wait_for_timeout(600)
    assert runs.posted[-1] == ("stop", {}), "what the server wrote is not sent back"
    runs.tell(done=8, begun=8)
    runs.over()
    assert page.evaluate(STATES) == ["done"]
    page.get_by_label("Chunk to retake from").fill("7")
    page.locator(".helios-bar button", has_text="Retake from").click()
    page.wait_for_timeout(500)
    verb, body = runs.posted[-1]
    assert verb == "write" and body["text"] == f"{TEXT}\n8 [end]:" and body["chunk"] == 7 and runs.names == 2
    assert f"\n7 [seed {body['seed']}]:" in browser.text and page.locator(".helios-marks").count() == 2


def test_a_retake_takes_the_place_of_a_take_and_a_branch_stands_beside_it(browser, runs):
    page, names = browser.page, []

    def made(text: str) -> None:
        runs.begin(text, begun=8)
        runs.tell(done=8)
        runs.film(8)
        runs.over()
        names.append(runs.run)

    def again(name: str) -> None:
        page.get_by_label("Chunk to retake from").fill("7")
        page.locator(".helios-bar button", has_text=name).click()
        page.wait_for_timeout(500)
        runs.score["text"] = browser.text
        page.evaluate("() => { window.queue = app.queuePrompt; app.queuePrompt = () => {} }")
        made(browser.text)
        page.evaluate("() => { app.queuePrompt = window.queue }")

    takes = lambda: [take["run"] for take in page.evaluate("() => node.properties.helios_takes")]  # noqa: E731
    made(f"{TEXT}\n8 [end]:")
    assert page.locator(".helios-picture").count() == 8 and takes() == names
    again("Branch")
    assert takes() == names and len(names) == 2
    again("Retake from")
    assert takes() == [names[0], names[2]]
    page.locator(".helios-bar button", has_text="Watch").click()
    page.locator(".helios-take").first.locator("button", has_text="Choose").click()
    page.wait_for_timeout(300)
    assert browser.text == f"{TEXT}\n8 [end]:"
    assert page.locator(".helios-take[aria-current='true']").get_attribute("title") == browser.text
    page.locator(".helios-take").last.get_by_label("Take it away").click()
    assert takes() == names[:1]


def test_a_run_of_another_page_is_not_this_ones(browser, runs):
    runs.begin("0: another text")
    runs.over()
    browser.send("helios-video.score", prompt=runs.run, node="5", **runs.score | {"begun": 5})  # late
    told = {"prompt": "not-ours", "node": "5", **runs.score, "text": "0: else", "first": "0: else"}
    browser.sockets[-1].send(json.dumps({"type": "helios-video.score", "data": told}))
    browser.page.wait_for_timeout(200)
    assert browser.text == TEXT and browser.page.evaluate(STATES) in ([], ["done"])
    assert not browser.page.locator(".helios-bar button", has_text="Pause").filter(visible=True).count()
