"""Directing a run from outside, in a real ComfyUI: the example client of web/docs/live.md as it stands there, a player
that follows the playlist while the video grows, and another take of a run that is over."""

from __future__ import annotations

import re
import subprocess

import av
import numpy as np
from helios_video.helios_core.join import video
from support.comfyui import NEEDED, PYTHON, ROOT, saved
from support.directed import BLUE, RED, WAIT, ask, shown
from support.directed import loop as directed

pytestmark = NEEDED
PROBES = WAIT


def client(server, folder, *words: str) -> subprocess.Popen:
    """The example client at work."""
    page = (ROOT / "web" / "docs" / "live.md").read_text(encoding="utf-8")
    text = re.search(r"```python\n(import asyncio.*?)```", page, re.S)[1]
    (folder / "direct.py").write_text(text.replace(":8188", f":{server.port}"))
    return subprocess.Popen([PYTHON, "-u", "direct.py", *words], cwd=folder, stdout=subprocess.PIPE, encoding="utf-8")


def test_the_example_client_directs_a_run_that_a_player_follows(server, tmp_path):
    at_work = client(server, tmp_path, f'2={{"prompt": "{BLUE}"}}', '1={"cfg": 900}', '5={"end": true}')
    prompt, node = directed(f"0 [seed 41]: {RED}", chunks=9, wait=1.5)
    run = server.queue(prompt)
    films = server.wait(lambda: ask(server, "films")[1]["films"], "the first chunk")
    assert (films[-1]["run"], films[-1]["schedule"], films[-1]["over"]) == (run, node, False)
    with av.open(f"http://127.0.0.1:{server.port}/helios/films/{run}/{films[-1]['film']}/video.m3u8") as file:
        played = [frame.to_ndarray() for frame in file.decode(video=0)]
    made = saved(server, server.finish(run))
    with av.open(str(made)) as file:
        assert np.array_equal(played, [frame.to_ndarray() for frame in file.decode(video=0)])
    frames = video.read_frames(made)
    assert shown(frames) == [("red", "circle")] * 2 + [("blue", "square")] * 3
    said = at_work.communicate(timeout=60)[0]
    assert "chunk 2: is set" in said and "chunk 5: is set" in said and "cfg '900': wanted a number" in said
    status, again = ask(server, "retake", {"run": run, "node": node, "chunk": 3, "seed": 42})
    assert status == 200
    another = video.read_frames(saved(server, server.run(again["prompt"])))
    assert np.array_equal(another[: 3 * 33], frames[: 3 * 33]) and not np.array_equal(
        another[3 * 33 :], frames[3 * 33 :]
    )
