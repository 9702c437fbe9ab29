"""A page with the timeline in ComfyUI's real frontend, and the end of its WebSocket that is ComfyUI's."""

from __future__ import annotations

import io
import json

import numpy as np

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
