"""Someone at the page of a real ComfyUI, who directs a run from the timeline.

HELIOS_SCREENSHOTS: a folder for pictures of the timeline on the way, for people to look at."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path

from helios_video.helios_core.join import video

from .comfyui import ROOT, saved
from .directed import RED, ask
from .frontend import visited

CHUNKS = 6
TEXT = f"0 [seed 5]: {RED}"
LOAD = """async workflow => {
  await app.loadGraphData(workflow)
  app.canvas.ds.scale = 1
  app.canvas.ds.offset = [300, 200].map((at, i) => at - app.graph.getNodeById(5).pos[i])
  app.canvas.setDirty(true, true)
  for (const button of document.querySelectorAll(".p-dialog-close-button")) button.click()
}"""
WIDGET = "() => app.graph.getNodeById(5).widgets.find(w => w.name === 'text').value"


def workflow(text: str = TEXT, chunks: int = CHUNKS, wait: float = 6.0) -> dict:
    """long_video with a score in place of its prompt, of few and quick chunks; wait: seconds after each."""
    flow = json.loads((ROOT / "workflows" / "long_video.json").read_text(encoding="utf-8"))
    nodes = {node["id"]: node for node in flow["nodes"]}
    nodes[5].update(type="HeliosPromptSchedule", widgets_values=[text], size=[400, 420], properties={})
    nodes[5]["inputs"] = [entry for entry in nodes[5]["inputs"] if entry["name"] != "one_per_line"]
    nodes[6]["widgets_values"] = [chunks]
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
        {"id": 90, "type": "Wait", **place, "inputs": inputs, "outputs": outputs, "widgets_values": [wait]}
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


@contextmanager
def directing(server, **flow):
    """A Director at a page with that workflow."""
    server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": False})
    with visited(f"http://127.0.0.1:{server.port}") as page:
        page.evaluate(LOAD, workflow(**flow))
        page.wait_for_selector(".helios-track")
        yield Director(server, page)
