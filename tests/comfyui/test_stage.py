"""A run directed from the timeline, in a real ComfyUI with its real frontend: an edit of a chunk that waits, one that
is refused, a pause over a reload of the page, and another take.

HELIOS_SCREENSHOTS: a folder for pictures of the timeline on the way, for people to look at."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helios_video.helios_core.join import video
from support.comfyui import NEEDED, ROOT, saved
from support.directed import BLUE, RED, WAIT, ask, shown
from support.frontend import READY, visited

pytestmark = NEEDED
PROBES = WAIT
CHUNKS = 6
TEXT = f"0 [seed 5]: {RED}"
LOAD = """async workflow => {
  await app.loadGraphData(workflow)
  app.canvas.ds.scale = 1
  app.canvas.ds.offset = [300, 200].map((at, i) => at - app.graph.getNodeById(5).pos[i])
  app.canvas.setDirty(true, true)
  for (const button of document.querySelectorAll(".p-dialog-close-button")) button.click()
}"""
# Of each picture on the timeline that is loaded, where it is most coloured.
COLOURS = """[...document.querySelectorAll(".helios-picture")].filter(p => p.complete && p.naturalWidth).map(p => {
  const canvas = new OffscreenCanvas(p.naturalWidth, p.naturalHeight), context = canvas.getContext("2d")
  context.drawImage(p, 0, 0)
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height)
  const points = Array.from({ length: data.length / 4 }, (_, i) => [...data.slice(4 * i, 4 * i + 3)])
  return points.reduce((a, b) => Math.max(...a) - Math.min(...a) >= Math.max(...b) - Math.min(...b) ? a : b)
})"""
WIDGET = "() => app.graph.getNodeById(5).widgets.find(w => w.name === 'text').value"


def workflow() -> dict:
    """long_video with a score in place of its prompt, of few and quick chunks, each of which takes some seconds."""
    flow = json.loads((ROOT / "workflows" / "long_video.json").read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in flow["nodes"]}
    nodes[5].update(type="HeliosPromptSchedule", widgets_values=[TEXT], size=[400, 420], properties={})
    nodes[5]["inputs"] = [entry for entry in nodes[5]["inputs"] if entry["name"] != "one_per_line"]
    nodes[6]["widgets_values"] = [CHUNKS]
    nodes[7]["widgets_values"][2] = "1,1,1"
    nodes[9]["widgets_values"][1] = "none"
    link = next(link for link in flow["links"] if link[0] == 8)  # the sampler's history, into AntiDrift
    flow["links"].append([90, 90, 0, *link[3:]])
    next(entry for entry in nodes[8]["inputs"] if entry["name"] == "history")["link"] = 90
    link[3:5] = 90, 0
    history = {"name": "history", "type": "HELIOS_HISTORY"}
    inputs, outputs = [{**history, "link": 8}], [{**history, "links": [90]}]
    place = {"pos": [nodes[8]["pos"][0], nodes[8]["pos"][1] + 900], "size": [200, 80]}
    flow["nodes"].append(
        {"id": 90, "type": "Wait", **place, "inputs": inputs, "outputs": outputs, "widgets_values": [6.0]}
    )
    flow.update(last_node_id=90, last_link_id=90)
    return flow


def picture(page, name: str) -> None:
    if folder := os.environ.get("HELIOS_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"stage_{name}.png", clip={"x": 280, "y": 160, "width": 460, "height": 500})


class Director:
    """Someone at the page of a server, and what the server says."""

    def __init__(self, server, page):
        self.server, self.page, self.run = server, page, None

    def stands(self) -> dict:
        return ask(self.server, f"runs/{self.run}/5")[1]

    def until(self, ready, what: str):
        return self.server.wait(lambda: ready(self.stands()), what)

    def queue(self, by) -> None:
        """by: what queues the workflow at the page."""
        before = self.run
        by()
        found = lambda: [run["run"] for run in ask(self.server, "runs")[1]["runs"] if run["run"] != before]  # noqa: E731
        self.run = self.server.wait(found, "the run")[0]

    def button(self, name: str):
        return self.page.locator(".helios-bar button", has_text=name)

    def press(self, name: str) -> None:
        """With the keyboard."""
        self.button(name).focus()
        self.page.keyboard.press("Enter")

    def write(self, prompt: str) -> None:
        """Into the box of the chosen span; leaving it ends the edit."""
        self.page.locator(".helios-row textarea").fill(prompt)
        self.page.locator(".helios-span").first.focus()

    def finished(self):
        frames = video.read_frames(saved(self.server, self.server.finish(self.run)))
        self.button("Retake from").wait_for(timeout=30_000)
        return frames


@pytest.fixture
def director(server):
    server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False})
    with visited(f"http://127.0.0.1:{server.port}") as page:
        page.evaluate(LOAD, workflow())
        page.wait_for_selector(".helios-track")
        yield Director(server, page)


def test_a_run_is_directed_from_the_timeline(director):
    page = director.page
    director.queue(lambda: page.evaluate("() => app.queuePrompt(0)"))
    director.until(lambda stands: stands.get("begun") == 2, "chunk 1")
    page.wait_for_selector(".helios-state[data-state='waiting']")
    track = page.locator(".helios-track").bounding_box()
    cells = page.locator(".helios-cell").count()
    page.mouse.dblclick(track["x"] + track["width"] * 4.5 / cells, track["y"] + 40)
    director.write(BLUE)
    director.until(lambda stands: stands["text"] == f"{TEXT}\n4: {BLUE}", "the edit")
    picture(page, "working")
    director.write("a yellow circle moving left")  # of chunk 0, which is made
    page.wait_for_selector(".helios-note.helios-bad")
    assert "needs a retake" in page.locator(".helios-note.helios-bad").inner_text()
    assert page.evaluate(WIDGET) == director.stands()["text"] == f"{TEXT}\n4: {BLUE}"
    picture(page, "refused")
    director.press("Pause")
    director.until(lambda stands: stands["paused"] and stands["done"] == stands["begun"] < CHUNKS, "the pause")
    page.reload()
    page.wait_for_function(READY, timeout=240_000)
    director.button("Go on").wait_for(timeout=60_000)
    assert page.evaluate(WIDGET) == f"{TEXT}\n4: {BLUE}"
    picture(page, "paused")
    director.press("Go on")
    first = director.finished()
    assert shown(first) == [("red", "circle")] * 4 + [("blue", "square")] * 2
    picture(page, "done")
    check_pictures(director)
    check_retake(director, first)


def check_pictures(director) -> None:
    """One of every chunk that is made, of the colour that the chunk has, also once the page was loaded anew."""
    director.page.reload()
    director.page.wait_for_function(READY, timeout=240_000)
    director.button("Retake from").wait_for(timeout=60_000)
    director.page.wait_for_function(f"() => {COLOURS}.length === {CHUNKS}", timeout=30_000)
    colours = director.page.evaluate(f"() => {COLOURS}")
    assert [red > blue for red, _, blue in colours] == [True] * 4 + [False] * 2, colours
    picture(director.page, "pictures")


def check_retake(director, first) -> None:
    director.page.get_by_label("Chunk to retake from").fill("5")
    director.queue(lambda: director.press("Retake from"))
    second = director.finished()
    text = director.page.evaluate(WIDGET)
    assert text.startswith(f"{TEXT}\n4: {BLUE}\n5 [seed ") and text.endswith("]:")
    assert np.array_equal(first[: 5 * 33], second[: 5 * 33]) and not np.array_equal(first[5 * 33 :], second[5 * 33 :])
    picture(director.page, "retaken")
