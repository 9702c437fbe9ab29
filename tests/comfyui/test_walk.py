"""A video directed from beginning to end, as a user would, in a real ComfyUI with its real frontend; and what is saved
of it makes it again, in a server that has never seen it. Two tabs and two prompts in the queue do not meet."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from helios_video.helios_core.join import video
from safetensors.numpy import load_file
from support.comfyui import NEEDED, saved, serving
from support.directed import BLUE, RED, WAIT, ask, shown
from support.frontend import READY
from support.stage import LOAD, WIDGET, Director, directing, picture, workflow

pytestmark = NEEDED
PROBES = WAIT
YELLOW = "a yellow circle moving left"
TEXT = f"0 [seed 25]: {RED}"
DROP = """async ([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0))
  const dataTransfer = new DataTransfer()
  dataTransfer.items.add(new File([bytes], name, { type: "video/mp4" }))
  const at = { dataTransfer, clientX: 900, clientY: 500, bubbles: true, cancelable: true }
  const canvas = document.querySelector("#graph-canvas")
  for (const type of ["dragover", "drop"]) canvas.dispatchEvent(new DragEvent(type, at))
}"""
R, B, Y = ("red", "circle"), ("blue", "square"), ("yellow", "circle")


def latents(server) -> dict:
    """What was sampled, by what it was sampled from."""
    found = {path.name: load_file(path) for path in (server.base / "user" / "helios" / "chunks").glob("*.safetensors")}
    return {name: entry["latent"] for name, entry in found.items() if "latent" in entry}


def press_at(page, chunk: float) -> None:
    track, cells = page.locator(".helios-track").bounding_box(), page.locator(".helios-cell").count()
    page.mouse.dblclick(track["x"] + track["width"] * chunk / cells, track["y"] + 60)


def edit_from(director, chunk: int, prompt: str) -> None:
    """Another prompt from a chunk on, by the mouse and the keys."""
    press_at(director.page, chunk + 0.5)
    director.write(prompt)


def test_a_video_is_directed_to_its_end_and_made_again_from_its_file(server, tmp_path_factory):
    with directing(server, text=TEXT, chunks=12, wait=4.0) as director:
        made, text = walk(director)
    entry = video.read_metadata(made)
    assert entry["prompt"]["5"]["inputs"]["text"] == text
    with serving(tmp_path_factory.mktemp("fresh"), PROBES) as fresh:
        with directing(fresh) as director:
            director.page.evaluate("() => app.graph.clear()")
            director.page.evaluate(DROP, [base64.b64encode(made.read_bytes()).decode(), made.name])
            director.page.wait_for_function("() => app.graph.getNodeById(5)?.widgets?.length", timeout=30_000)
            assert director.page.evaluate(WIDGET) == text
            director.queue(lambda: director.page.evaluate("() => app.queuePrompt(0)"))
            again = director.finished()
        one, two = latents(server), latents(fresh)
    assert np.array_equal(again, video.read_frames(made))
    assert len(two) == 12 and all(np.array_equal(two[name], one[name]) for name in two)


def walk(director):
    """The file of the last take, and its score."""
    page = director.page
    director.press("Watch")
    director.queue(lambda: page.evaluate("() => app.queuePrompt(0)"))
    director.until(lambda stands: stands.get("begun") == 3, "chunk 2")
    edit_from(director, 3, BLUE)
    director.until(lambda stands: stands["text"] == f"{TEXT}\n3: {BLUE}", "the edit")
    director.until(lambda stands: stands["begun"] == 6, "chunk 5")
    director.press("Pause")
    director.until(lambda stands: stands["paused"] and stands["done"] == 6, "the pause")
    picture(page, "walk_paused")
    page.reload()
    page.wait_for_function(READY, timeout=240_000)
    director.button("Go on").wait_for(timeout=60_000)
    director.press("Go on")
    first = director.finished()
    assert shown(first) == [R] * 3 + [B] * 9
    page.get_by_label("Chunk to retake from").fill("4")
    director.queue(lambda: director.press("Retake from"))
    second = director.finished()
    assert shown(second) == [R] * 3 + [B] * 9 and np.array_equal(first[: 4 * 33], second[: 4 * 33])
    assert not np.array_equal(first[4 * 33 :], second[4 * 33 :])
    edit_from(director, 8, YELLOW)
    page.wait_for_function("() => document.querySelector('[aria-label=\"Chunk to retake from\"]').value === '8'")
    director.queue(lambda: director.press("Branch"))
    third = director.finished()
    assert shown(third) == [R] * 3 + [B] * 5 + [Y] * 4 and np.array_equal(second[: 8 * 33], third[: 8 * 33])
    page.wait_for_function("() => document.querySelectorAll('.helios-take video').length === 2")
    picture(page, "walk_done")
    return saved(director.server, director.server.finish(director.run)), page.evaluate(WIDGET)


@pytest.fixture
def two_tabs(server):
    with directing(server, text=f"0 [seed 26]: {RED}", chunks=5, wait=4.0) as first:
        second = Director(server, first.page.context.browser.new_page(viewport={"width": 1920, "height": 1080}))
        second.page.goto(f"http://127.0.0.1:{server.port}")
        second.page.wait_for_function(READY, timeout=240_000)
        second.page.wait_for_timeout(4000)
        second.page.evaluate(LOAD, workflow(f"0 [seed 27]: {RED}", 3, 4.0))
        second.page.wait_for_selector(".helios-track")
        yield first, second


def test_two_tabs_and_two_prompts_do_not_meet(two_tabs, server):
    one, two = two_tabs
    one.queue(lambda: one.page.evaluate("() => app.queuePrompt(0)"))
    two.page.evaluate("() => app.queuePrompt(0)")
    one.until(lambda stands: stands.get("begun") == 2, "chunk 1")
    edit_from(two, 1, YELLOW)  # its run waits in the queue: nothing may reach the one in work
    edit_from(one, 3, BLUE)
    one.until(lambda stands: stands["text"] == f"0 [seed 26]: {RED}\n3: {BLUE}", "the edit")
    one.page.reload()
    one.page.wait_for_function(READY, timeout=240_000)
    assert shown(one.finished()) == [R] * 3 + [B] * 2
    found = lambda: [run["run"] for run in ask(server, "runs")[1]["runs"] if run["run"] != one.run]  # noqa: E731
    two.run = server.wait(found, "the second run")[0]
    two.until(lambda stands: stands.get("begun") == 1, "its first chunk")
    two.page.locator(".helios-span").last.focus()
    two.page.keyboard.press("Insert")
    two.write(BLUE)
    frames = two.finished()
    assert shown(frames)[0] == R and two.page.evaluate(WIDGET).startswith(f"0 [seed 27]: {RED}")
    assert one.page.evaluate(WIDGET) == f"0 [seed 26]: {RED}\n3: {BLUE}"
