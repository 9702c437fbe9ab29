"""Our web extension in ComfyUI's real frontend: the timeline edits the schedule's own text widget and nothing else, the
plots and the filmstrip grow with the events of a run, and none of it is saved or queued."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from helios_video.helios_core.text.prompts import PromptSchedule
from support.frontend import EXTENSIONS, MOUNT, opened, static_folders

SCHEDULE, JOINS = 5, ("7", "9", "11", "13")
RED, YELLOW, BLUE = (f"a {what} on a plain background" for what in ("red circle", "yellow circle", "blue square"))
TEXT = f"0: {RED}\n1 (2): {YELLOW}\n4: {BLUE}"
PLACE = {"pos": [0, 0], "size": [400, 420]}
NODES = [{"id": SCHEDULE, "type": "HeliosPromptSchedule", **PLACE}]
NODES += [
    {"id": int(n), "type": "ChunkConcat", "pos": [400 + 330 * i, 0], "size": [300, 320]} for i, n in enumerate(JOINS)
]
VIEW = {"ds": {"scale": 1, "offset": [200, 150]}}
WORKFLOW = {"nodes": NODES, "links": [], "groups": [], "extra": VIEW, "last_node_id": 20, "version": 0.4}
LOAD = """async ([workflow, id, text, vue]) => {
  await app.extensionManager.setting.set("Comfy.VueNodes.Enabled", vue)
  workflow.nodes[0].widgets_values = [text]
  workflow.id = crypto.randomUUID() // what a run left is kept by graph
  await app.loadGraphData(workflow)
  window.node = app.graph.getNodeById(id)
  window.area = () => app.graph.getNodeById(id).widgets.find(w => w.name == "text")
  for (const button of document.querySelectorAll(".p-dialog-close-button")) button.click()
}"""
SPANS = """() => [...document.querySelectorAll(".helios-span")].map(s => {
  const [track, span] = [s.parentElement.getBoundingClientRect(), s.getBoundingClientRect()]
  return [(span.left - track.left) / track.width, (span.right - track.left) / track.width, s.textContent]
})"""
AGAIN = """async () => { // as undo and a change of tabs do
  await app.loadGraphData(app.graph.serialize(), false, false, app.extensionManager.workflow.activeWorkflow)
}"""
QUEUED = "async () => { const p = (await app.graphToPrompt()).output; return p[5].inputs }"


def jpeg():
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save(file, "JPEG")
    return file.getvalue()


class Browser:
    """A page with the extension, and the end of its WebSocket that is ComfyUI's."""

    def __init__(self):
        self.sockets, self.problems, self.page = [], [], None

    def prepare(self, page):
        status = {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "one"}}
        page.route_web_socket("**/ws*", lambda ws: (self.sockets.append(ws), ws.send(json.dumps(status))))
        page.route("**/api/view*", lambda route: route.fulfill(body=jpeg(), content_type="image/jpeg"))
        page.on("pageerror", lambda error: self.problems.append(error.stack or str(error)))

    def load(self, text=TEXT):
        self.page.evaluate(LOAD, [WORKFLOW, SCHEDULE, text, self.vue])
        self.page.wait_for_function("() => document.querySelector('.helios-track')?.offsetWidth > 200")
        self.page.wait_for_timeout(1000)

    @property
    def text(self):
        return self.page.evaluate("() => area().value")

    def send(self, event, **values):
        self.sockets[-1].send(json.dumps({"type": event, "data": values}))

    def drag(self, selector, chunks):
        """Drags an element by so many cells."""
        box = self.page.locator(selector).bounding_box()
        cell = self.page.locator(".helios-track").bounding_box()["width"] / self.cells()
        x, y = box["x"] + min(4, box["width"] / 2), box["y"] + min(6, box["height"] / 2)
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + chunks * cell / 2, y, steps=2)
        self.page.mouse.move(x + chunks * cell, y, steps=2)
        self.page.mouse.up()
        self.page.wait_for_timeout(250)  # the frontend joins edits that follow faster into one step of its undo

    def cells(self):
        return self.page.locator(".helios-cell").count()


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


def test_the_timeline_shows_the_schedule_and_adds_nothing_to_file_or_prompt(browser):
    shown = browser.page.evaluate(SPANS)
    assert [label for *_, label in shown] == [RED, YELLOW, BLUE] and browser.cells() == 7
    assert [edge for *edges, _ in shown for edge in edges] == pytest.approx(
        [0, 1 / 7, 1 / 7, 4 / 7, 4 / 7, 1], abs=0.01
    )
    assert browser.page.locator(".helios-old").count() == 1, "the blend from chunk 1 to 2"
    assert browser.page.evaluate("() => node.serialize().widgets_values") == [TEXT]
    assert browser.page.evaluate(QUEUED) == {"text": TEXT}
    assert browser.page.evaluate("() => document.querySelectorAll('.helios-plot, .helios-shot').length") == 0


def test_dragging_changes_the_text_what_is_queued_and_the_graphs_undo(browser):
    browser.drag("[data-cue='2'] .helios-edge", 1)
    edited = f"0: {RED}\n1 (2): {YELLOW}\n5: {BLUE}"
    assert browser.text == edited and browser.page.evaluate(QUEUED)["text"] == edited
    browser.drag("[data-cue='1'] .helios-blend", 2)
    assert browser.text == edited.replace("(2)", "(4)")
    browser.drag("[data-cue='1'] .helios-label", 9)
    assert browser.text == f"0: {RED}\n3 (4): {YELLOW}\n7: {BLUE}", "with its end, as far as there are cells"
    browser.drag("[data-cue='1'] .helios-label", -9)
    assert browser.text == edited.replace("(2)", "(4)"), "the one before keeps a chunk"
    browser.drag("[data-cue='1'] .helios-blend", -9)
    browser.drag("[data-cue='2'] .helios-label", -1)
    assert browser.text == f"0: {RED}\n1: {YELLOW}\n4: {BLUE}"
    wide = edited.replace("(2)", "(4)")
    for text in (
        f"0: {RED}\n1: {YELLOW}\n5: {BLUE}",
        wide,
        f"0: {RED}\n3 (4): {YELLOW}\n7: {BLUE}",
        wide,
        edited,
        TEXT,
    ):
        browser.page.keyboard.press("Control+z")
        browser.page.wait_for_function("text => area().value == text", arg=text)
    browser.page.wait_for_function("() => document.querySelectorAll('.helios-span').length == 3")


def test_prompts_are_added_written_moved_and_removed_by_mouse_and_keys(browser):
    page, track = browser.page, browser.page.locator(".helios-track").bounding_box()
    page.mouse.dblclick(track["x"] + track["width"] * 3.5 / 7, track["y"] + 40)
    assert browser.text == f"0: {RED}\n1 (2): {YELLOW}\n3: {YELLOW}\n4: {BLUE}"
    page.keyboard.type("a bird; 5: no entry")
    page.locator("[data-cue='3']").focus()
    assert browser.text == f"0: {RED}\n1 (2): {YELLOW}\n3: a bird\\; 5: no entry\n4: {BLUE}"
    assert [label for *_, label in page.evaluate(SPANS)][2] == "a bird; 5: no entry"
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    assert browser.text.endswith(f"\n5 (2): {BLUE}")
    page.locator("[data-cue='2']").focus()
    page.keyboard.press("Delete")
    assert browser.text == f"0: {RED}\n1 (2): {YELLOW}\n5 (2): {BLUE}", "and the node is still there"
    page.locator("[data-cue='0']").focus()
    page.keyboard.press("Delete")
    assert browser.text == f"0: {YELLOW}\n5 (2): {BLUE}"
    page.keyboard.press("Insert")
    page.locator(".helios-row textarea").fill("   ")
    assert browser.text == f"0: {YELLOW}\n2: {YELLOW}\n5 (2): {BLUE}", "an empty prompt is not written"


@pytest.mark.parametrize("wrong", ["no chunk here", "0: a\n2 (5): b\n4: c", "0: a\n1.5: b", "1: late"])
def test_an_error_is_shown_and_the_text_is_left_alone(browser, wrong):
    browser.load(wrong)
    page = browser.page
    assert page.locator(".helios-note.helios-bad").inner_text().endswith(".")
    assert page.locator(".helios-row textarea").is_disabled() and not page.locator(".helios-edge").count()
    for span in page.locator(".helios-span").all():
        span.focus()
        for key in ("Delete", "ArrowRight", "Insert"):
            page.keyboard.press(key)
    track = page.locator(".helios-track").bounding_box()
    page.mouse.dblclick(track["x"] + track["width"] - 20, track["y"] + 40)
    assert browser.text == wrong


def test_the_plain_widget_stays_the_truth(browser):
    box = browser.page.locator("textarea:not(.helios-row textarea)").filter(visible=True)
    area = next(item for item in box.all() if item.input_value() == TEXT)
    area.fill("0: typed by hand ;\n\n  3(2):more; 16:9\n")
    browser.page.wait_for_function("() => document.querySelectorAll('.helios-span').length == 2")
    assert [label for *_, label in browser.page.evaluate(SPANS)] == ["typed by hand", "more; 16:9"]
    browser.drag("[data-cue='1'] .helios-edge", -1)
    assert browser.text == "0: typed by hand ;\n\n  2(2):more; 16:9\n", "only the number changed"


TEXTS = r"""
0: a; 4 (2): b|0: a;; b 12:30;~2:x\; 3: y;|0: a; 1.5: b|0: a; -1: b|0: a; 2 (0): b|0: a; 2 (x): b|0: a; 2 (): b
0: a; 2 (3): b; 4: c|0 (1): a|0 (2): a|1: a||0:|0: a~ 007 ( 2 ) : b|0: a; 2: |x~0: a|0: a; 2: b; 2: c|0: 4: a; 5:6"""
TEXTS = [text.replace("~", "\n") for line in TEXTS.strip().splitlines() for text in line.split("|")]


def test_the_browser_reads_texts_as_the_node_does(started):
    code = "async ([url, texts]) => { const {parse} = await import(url); return texts.map(parse) }"
    for text, read in zip(TEXTS, started.page.evaluate(code, [f"{MOUNT}/js/schedule.js", TEXTS])):
        try:
            cues = [[cue.chunk, cue.blend, cue.prompt] for cue in PromptSchedule.parse(text).cues]
        except ValueError:
            assert read["error"], text
        else:
            assert [[c["chunk"], c["blend"], c["prompt"]] for c in read["cues"]] == cues and not read["error"], text


def test_filmstrip_and_joints_grow_with_the_run(browser):
    page, names = browser.page, []
    sizes = page.evaluate("ids => ids.map(id => app.graph.getNodeById(id).serialize().widgets_values)", list(JOINS))
    for i, node in enumerate(JOINS):
        names.append(f"chunk_{i:04d}")
        browser.send(
            "helios-video.chunk", node=node, folder="helios/r", names=names, jump=2.5 + i if i else None, inside=1.2
        )
        drawn = i + 1 + sum(range(1, i + 1))
        page.wait_for_function(
            "n => [...document.querySelectorAll('.helios-shot img')].filter(p => p.complete).length == n", arg=drawn
        )
    assert page.locator(".helios-plot circle").count() == 1 + 2 + 3
    address = page.locator(".helios-shot img").last.get_attribute("src")
    assert address.endswith("/view?filename=chunk_0003.jpg&subfolder=helios%2Fr&type=temp")
    after = page.evaluate("ids => ids.map(id => app.graph.getNodeById(id).serialize().widgets_values)", list(JOINS))
    assert after == sizes
    page.evaluate(AGAIN)
    page.wait_for_function("() => document.querySelectorAll('.helios-shot img').length == 10")


def test_the_drift_plot_grows_and_a_new_run_starts_anew(browser):
    page = browser.page
    ids = page.evaluate("""() => [0, 1].map(i => {
      const node = LiteGraph.createNode("AntiDrift")
      node.pos = [400 * i, 1000]
      app.graph.add(node)
      if (i) app.graph.getNodeById(window.first).connect(0, node, 0)
      window.first = node.id
      return String(node.id)
    })""")
    limits = dict(mean_threshold=0.15, variance_threshold=0.15)
    for node, chunk in [(ids[0], 0), (ids[1], 1), (ids[1], 2), (ids[1], 3)]:
        far = dict(mean=0.1 * chunk, variance=0.1 * chunk, first_mean=0.2, first_variance=0.2, found=chunk == 3)
        browser.send("helios-video.drift", node=node, chunk=chunk, **far, **limits)
    count = "n => document.querySelectorAll('.helios-plot circle').length == n"
    page.wait_for_function(count, arg=2 * 1 + 2 * 4)  # the second node shows the first one's chunk too
    assert page.locator(".helios-plot circle.helios-found").count() == 2
    browser.send("helios-video.drift", node=ids[1], chunk=1, **{**far, "found": False}, **limits)
    page.wait_for_function(count, arg=2 * 1 + 2 * 2)
    browser.send("helios-video.drift", node="999", chunk=1, **far, **limits)  # of a graph that is not on screen
    browser.send("helios-video.drift", node=JOINS[0], chunk=1, **far, **limits)
    page.wait_for_timeout(300)
    assert page.evaluate(count, 2 * 1 + 2 * 2)
