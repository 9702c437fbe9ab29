"""A video that is watched while it grows, in a real ComfyUI with its real frontend, and its takes side by side: how
long a chunk takes from its end to the screen, playing in step, the choice of one, what a reload and a restart leave.

Figures are printed: pytest -s."""

from __future__ import annotations

import pytest
from support.comfyui import NEEDED
from support.directed import RED, WAIT
from support.frontend import READY
from support.stage import WIDGET, directing, picture

pytestmark = NEEDED
PROBES = WAIT
CHUNKS, WAITS = 5, 3.0
TEXT = f"0 [seed 15]: {RED}"
# Notes of every frame shown of a video: its time, and when it was on the screen.
FRAMES = """() => {
  const video = document.querySelector(".helios-take video"), seen = (window.seen = [])
  const note = (now, { mediaTime, expectedDisplayTime }) => {
    seen.push([mediaTime, (performance.timeOrigin + Math.max(now, expectedDisplayTime)) / 1000])
    video.requestVideoFrameCallback(note)
  }
  video.requestVideoFrameCallback(note)
}"""
TIMES = "() => [...document.querySelectorAll('.helios-take video')].map(v => v.currentTime)"
PLAYS = """n => {
  const videos = [...document.querySelectorAll(".helios-take video")]
  return videos.length === n && videos.every(video => video.readyState > 2 && !video.paused)
}"""


@pytest.fixture
def director(server):
    with directing(server, text=TEXT, chunks=CHUNKS, wait=WAITS) as found:
        yield found


def latencies(server, seen: list) -> list[float]:
    """Seconds from the end of each chunk's file to its first frame on the screen, of chunks that were waited for."""
    ends = {}
    for path in (server.base / "temp" / "helios").rglob("chunk_*.mp4"):
        if not path.name.endswith(".part.mp4"):
            ends[path.stem] = max(path.stat().st_mtime, ends.get(path.stem, 0))
    length, found = 33 / 24, []
    for k in range(1, CHUNKS):
        shown = [when for media, when in seen if k * length - 0.01 <= media < (k + 1) * length]
        found.append(round(min(shown) - ends[f"chunk_{k:04d}"], 2))
    return found


def test_a_video_is_watched_while_it_grows_and_its_takes_are_compared(director):
    page, server = director.page, director.server
    director.press("Watch")
    picture(page, "watch_empty")
    director.queue(lambda: page.evaluate("() => app.queuePrompt(0)"))
    page.wait_for_function("() => document.querySelector('.helios-take video')?.readyState > 1", timeout=60_000)
    page.evaluate(FRAMES)
    director.until(lambda stands: stands["done"] == 4, "chunk 3")
    assert "s behind" in page.locator(".helios-time").inner_text()
    picture(page, "watched")
    director.finished()
    page.wait_for_function(f"() => window.seen.at(-1)?.[0] > {(CHUNKS - 1) * 33 / 24 + 0.5}", timeout=60_000)
    late = latencies(server, page.evaluate("() => window.seen"))
    print("seconds from a chunk's end to its first frame on the screen:", late)
    assert sorted(late)[len(late) // 2] < 0.5
    check_branch(director)
    check_choice(director)


def check_branch(director) -> None:
    """Both are there, and play in step, from the beginning where they were at the end."""
    page = director.page
    page.get_by_label("Chunk to retake from").fill("2")
    director.queue(lambda: director.press("Branch"))
    director.finished()
    page.wait_for_function("() => document.querySelectorAll('.helios-take video').length == 2")
    if page.get_by_label("Play and pause").get_attribute("aria-pressed") == "false":
        page.get_by_label("Play and pause").press("Enter")
    page.wait_for_function(PLAYS, arg=2, timeout=30_000)
    times = []
    for _ in range(6):
        page.wait_for_timeout(300)
        times.append([round(time, 2) for time in page.evaluate(TIMES)])
    print("where the two takes were:", times)
    assert times[0][0] < times[-1][0] and sorted(abs(one - two) for one, two in times)[3] < 0.15
    picture(page, "branch")


def check_choice(director) -> None:
    """The chosen take's score is the text, over a reload and a restart of the server too."""
    page, server = director.page, director.server
    assert page.evaluate(WIDGET).startswith(f"{TEXT}\n2 [seed ")
    page.locator(".helios-take").first.locator("button", has_text="Choose").click()
    page.wait_for_function(
        "text => app.graph.getNodeById(5).widgets.find(w => w.name === 'text').value === text", arg=TEXT
    )
    page.wait_for_timeout(1500)  # the frontend's own saving of a draft
    page.reload()
    page.wait_for_function(READY, timeout=240_000)
    page.wait_for_function("() => document.querySelectorAll('.helios-take video').length == 2", timeout=60_000)
    assert page.evaluate(WIDGET) == TEXT
    assert page.locator(".helios-take[aria-current='true']").get_attribute("title") == TEXT
    picture(page, "chosen")
    server.stop()
    server.begin(port=server.port)
    server.up()
    page.reload()
    page.wait_for_function(READY, timeout=240_000)
    page.wait_for_function("() => document.querySelectorAll('.helios-take').length == 2", timeout=60_000)
    assert page.evaluate(WIDGET) == TEXT
    page.locator(".helios-take").last.locator("button", has_text="Choose").click()
    page.wait_for_timeout(500)
    assert page.evaluate(WIDGET).startswith(f"{TEXT}\n2 [seed ")
    picture(page, "restarted")
