"""A run directed from the timeline, in a real ComfyUI with its real frontend: an edit of a chunk that waits, one that
is refused, a pause over a reload of the page, and another take."""

from __future__ import annotations

import numpy as np
import pytest
from support.comfyui import NEEDED
from support.directed import BLUE, WAIT, shown
from support.frontend import READY
from support.stage import CHUNKS, TEXT, WIDGET, directing, picture

pytestmark = NEEDED
PROBES = WAIT
# Of each picture on the timeline that is loaded, where it is most coloured.
COLOURS = """[...document.querySelectorAll(".helios-picture")].filter(p => p.complete && p.naturalWidth).map(p => {
  const canvas = new OffscreenCanvas(p.naturalWidth, p.naturalHeight), context = canvas.getContext("2d")
  context.drawImage(p, 0, 0)
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height)
  const points = Array.from({ length: data.length / 4 }, (_, i) => [...data.slice(4 * i, 4 * i + 3)])
  return points.reduce((a, b) => Math.max(...a) - Math.min(...a) >= Math.max(...b) - Math.min(...b) ? a : b)
})"""


@pytest.fixture
def director(server):
    with directing(server) as found:
        yield found


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


DROP = """([selector, x, y, name]) => {
  const canvas = new OffscreenCanvas(64, 64), context = canvas.getContext("2d")
  context.fillStyle = "rgb(0, 0, 255)"
  context.fillRect(0, 0, 64, 64)
  return canvas.convertToBlob({ type: "image/png" }).then((blob) => {
    const dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File([blob], name, { type: "image/png" }))
    const at = { dataTransfer, clientX: x, clientY: y, bubbles: true, cancelable: true }
    for (const type of ["dragover", "drop"]) document.querySelector(selector).dispatchEvent(new DragEvent(type, at))
  })
}"""


def test_a_picture_is_dropped_on_a_chunk(director):
    page, server = director.page, director.server
    track, cells = page.locator(".helios-track").bounding_box(), page.locator(".helios-cell").count()
    place = [".helios-track", track["x"] + track["width"] * 1.5 / cells, track["y"] + 60]
    page.evaluate(DROP, [*place, "a cat.png"])
    wanted = f'{TEXT}\n1 [image "a cat.png" 0.5]:'
    page.wait_for_function(
        "text => app.graph.getNodeById(5).widgets.find(w => w.name === 'text').value === text", arg=wanted
    )
    assert (server.base / "input" / "a cat.png").is_file()
    assert page.evaluate("() => app.graph.nodes.length") > 5, "the frontend has not opened it as a workflow"
    page.locator(".helios-span").first.focus()
    chooser = page.locator(".helios-row input[type=file]")
    chooser.set_input_files(server.base / "input" / "a cat.png")
    page.wait_for_function(
        "text => app.graph.getNodeById(5).widgets.find(w => w.name === 'text').value.includes(text)",
        arg="0 [seed 5, image",
    )
    picture(page, "dropped")
    page.evaluate(DROP, [*place, 'a"b.png'])
    page.wait_for_timeout(1500)
    said = page.locator(".helios-note.helios-bad").all_inner_texts()
    assert not said or "quotes" in said[0]
