"""What a user meets before a run, in ComfyUI's real frontend: new nodes, copies of a template, the order of templates,
models that are not there, other languages, and words that can be read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import helios_video as pack
import pytest
from support.frontend import EXTENSIONS, MOUNT, opened, static_folders

ROOT = Path(pack.__file__).parent
JS = ROOT / "web" / "js"
FLOWS = ROOT / "workflows"
NEW = """type => {
  const node = LiteGraph.createNode(type)
  app.graph.add(node)
  return {
    size: Array.from(node.size), models: node.properties.models,
    widgets: Object.fromEntries((node.widgets ?? []).map(w => [w.name, [w.value, w.options?.max]])),
  }
}"""
OPEN = """async workflow => {
  await app.loadGraphData(workflow, true, true, null)
  return [...document.querySelectorAll(".helios-shot, .helios-plot")].length
}"""
QUEUED = "async () => (await app.graphToPrompt()).output"
CONTRAST = """() => {
  const light = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const style = getComputedStyle(document.querySelector(".helios-note.helios-bad"))
  const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x)
  return (a + 0.05) / (b + 0.05)
}"""


def read(name):
    return json.loads((FLOWS / f"{name}.json").read_text(encoding="utf-8"))


class Opened:
    def __init__(self):
        self.sockets, self.page, self.prompts = [], None, []

    def prepare(self, page):
        status = {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "one"}}
        page.route_web_socket("**/ws*", lambda ws: (self.sockets.append(ws), ws.send(json.dumps(status))))
        page.route("**/api/view*", lambda route: route.fulfill(body=b"", content_type="image/jpeg"))
        page.route("**/api/prompt", self.queue)
        names = sorted(path.stem for path in FLOWS.glob("*.json"))
        page.route("**/api/workflow_templates", lambda route: route.fulfill(json={MOUNT.split("/")[-1]: names}))

    def queue(self, route):
        self.prompts.append(json.loads(route.request.post_data))
        route.fulfill(json={"prompt_id": f"prompt-{len(self.prompts)}", "number": 1, "node_errors": {}})

    def send(self, event, **values):
        self.sockets[-1].send(json.dumps({"type": event, "data": values}))


@pytest.fixture(scope="module", params=static_folders() or [None], ids=lambda p: p and p.parent.name)
def started(request):
    started = Opened()
    with opened(request.param, extensions=EXTENSIONS, prepare=started.prepare) as started.page:
        yield started


@pytest.fixture
def page(started):
    started.page.evaluate("async () => { await app.loadGraphData({nodes: [], links: [], version: 0.4}) }")
    return started.page


def test_a_new_nodes_seed_is_fixed_and_what_the_browser_can_count(page):
    for name in ("HistoryMemory", "DMDPyramidSample", "AntiDrift", "ULDecoder", "HeliosNoise"):
        widgets = page.evaluate(NEW, name)["widgets"]
        assert widgets["control_after_generate"][0] == "fixed", name
        assert widgets["seed"] == [0, 2**53 - 1], name


def test_a_new_node_has_room_for_what_a_run_shows(page):
    assert page.evaluate(NEW, "ChunkConcat")["size"][1] > 128 + 300
    assert page.evaluate(NEW, "DMDPyramidSample")["size"][1] > 450
    assert page.evaluate(NEW, "AntiDrift")["size"][1] > 96 + 100


def test_a_new_loader_knows_where_the_published_parts_lie(page):
    """As the loaders of our workflows do."""
    loader = next(node for node in read("text_to_video")["nodes"] if node["type"] == "HeliosLoader")
    assert page.evaluate(NEW, "HeliosLoader")["models"] == loader["properties"]["models"]


def test_a_prompt_may_hold_choices(page):
    page.evaluate(NEW, "T5Encode")
    page.evaluate(NEW, "HeliosPromptSchedule")
    page.evaluate(
        "() => app.graph._nodes.forEach(n => { n.widgets.find(w => w.name == 'text').value = '0: a {red|blue} dot' })"
    )
    seen = set()
    for _ in range(12):
        seen |= {node["inputs"]["text"] for node in page.evaluate(QUEUED).values()}
    assert seen == {"0: a red dot", "0: a blue dot"}


def test_a_saved_runs_name_takes_dates_and_other_nodes_values(page):
    page.evaluate(NEW, "HeliosSaveHistory")
    page.evaluate(
        "() => { app.graph._nodes[0].widgets.find(w => w.name == 'filename_prefix').value = 'a_%date:yyyy%' }"
    )
    (node,) = page.evaluate(QUEUED).values()
    assert re.fullmatch(r"a_20\d\d", node["inputs"]["filename_prefix"])


def test_a_copy_of_a_template_does_not_show_another_ones_run(started, page):
    """Two tabs of the same file, so of the same ids; what comes later goes to the one that was queued."""
    source = read("text_to_video")
    joins = [str(node["id"]) for node in source["nodes"] if node["type"] == "ChunkConcat"]
    page.evaluate(OPEN, source)
    page.evaluate("async () => { await app.queuePrompt(0, 1) }")
    number = f"prompt-{len(started.prompts)}"
    event = dict(prompt=number, folder="helios/r", jump=None, inside=1.0)
    started.send("helios-video.chunk", node=joins[0], names=["chunk_0000"], **event)
    page.wait_for_function("() => document.querySelectorAll('.helios-shot').length == 1")
    assert page.evaluate(OPEN, source) == 0, "the copy never ran"
    started.send("helios-video.chunk", node=joins[1], names=["chunk_0000", "chunk_0001"], **event)
    page.wait_for_timeout(300)
    assert page.locator(".helios-shot").count() == 0
    page.evaluate("""async () => {
      const tabs = app.extensionManager.workflow.openWorkflows
      await app.extensionManager.workflow.openWorkflow?.(tabs.at(-2))
      await app.loadGraphData(tabs.at(-2).activeState, true, true, tabs.at(-2))
    }""")
    page.wait_for_function("() => document.querySelectorAll('.helios-shot').length == 3")


def test_the_templates_come_in_the_order_in_which_they_are_learnt(page):
    found = page.evaluate("async () => Object.values(await app.api.getWorkflowTemplates())[0]")
    assert found[:3] == ["one_node_text_to_video", "one_node_image_to_video", "text_to_video"]
    assert sorted(found) == sorted(path.stem for path in FLOWS.glob("*.json"))
    order = re.findall(r'"(\w+)"', (JS / "templates.js").read_text().split("ORDER = [")[1].split("]")[0])
    assert found == order, "web/js/templates.js names them all"


@pytest.mark.parametrize("name", ["Helios-Distilled", "mine"])
def test_a_model_that_is_not_there_is_told_of_with_its_place(page, name):
    source = read("text_to_video")
    loader = next(node for node in source["nodes"] if node["type"] == "HeliosLoader")
    page.evaluate(OPEN, source)
    assert page.locator(".helios-absent").filter(visible=True).count() == 0, "helios-tiny is always there"
    loader["widgets_values"][0] = name
    page.evaluate(OPEN, source)
    said = page.locator(".helios-absent")
    assert f"models/helios/{name}" in said.inner_text()
    links = [link.get_attribute("href") for link in said.locator("a").all()]
    assert links == ([f"https://huggingface.co/BestWishYsh/{name}"] if name.startswith("Helios") else [])
    page.evaluate("() => app.ui.dialog.close()")


def test_an_error_of_the_timeline_can_be_read_on_any_node(page):
    source = read("prompt_schedule")
    schedule = next(node for node in source["nodes"] if node["type"] == "HeliosPromptSchedule")
    schedule["widgets_values"] = ["no chunk here"]
    page.evaluate(OPEN, source)
    page.wait_for_selector(".helios-note.helios-bad")
    assert page.evaluate(CONTRAST) >= 7


def test_every_word_of_the_panels_is_translated_and_none_is_stale(page):
    words = page.evaluate("async url => (await import(url)).WORDS", f"{MOUNT}/js/words.js")
    code = {path.name: path.read_text(encoding="utf-8") for path in JS.glob("*.js") if path.name != "words.js"}
    everything = " ".join(re.sub(r'"\s*\+\s*"', "", text) for text in code.values())
    said = {json.loads(f'"{text}"') for text in re.findall(r'say\(\s*"((?:[^"\\]|\\.)*)"', everything)}
    said |= set(re.findall(r'(?:empty: |const HELP =\s*|const WIRED =\s*)"([^"]+)"', everything))
    for language, texts in words.items():
        assert said == set(texts), f"{language}: {said ^ set(texts)}"
        for english, text in texts.items():
            assert set(re.findall(r"{\w+}", english)) == set(re.findall(r"{\w+}", text)), text


def test_names_of_extensions_and_events_are_the_packs_own():
    for path in JS.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        names = re.findall(r'registerExtension\(\{\s*name: "([^"]+)"|addEventListener\("(helios[^"]*)"', text)
        assert all(name.startswith("helios-video.") for pair in names for name in pair if name), path.name
