"""What the web extension draws while a run goes on: drift per chunk, the filmstrip and the joints.

Events go to the browser that queued the prompt; without ComfyUI, or where none did, nothing is measured or written.
"""

from __future__ import annotations

import math

import numpy as np

from ..helios_core.version import VERSION
from . import core, host, kept


def show_drift(chunk: int, policy, found) -> None:
    """The distances of chunk number `chunk`, drift.Drift, and the thresholds of drift.DriftPolicy."""
    thresholds = {"mean_threshold": policy.mean_threshold, "variance_threshold": policy.variance_threshold}
    _send("helios-video.drift", {"chunk": chunk, **found._asdict(), **thresholds})


def show_chunk(clip) -> None:
    """The newest chunk of a join.Clip: a small picture of its end beside its file, and how its joint compares."""
    if _server() is None:
        return
    core.join.small.keep(clip.tail.frame, clip.segments[-1].path)
    _send(
        "helios-video.chunk",
        {
            "folder": "/".join(clip.folder.parts[-2:]),  # as host.clip_folder makes it, below ComfyUI's temp folder
            "names": [segment.path.stem for segment in clip.segments],
            **_joint(clip),
        },
    )


def _joint(clip) -> dict:
    """{"jump", "inside"}: how much a pixel changes over a clip's last joint, and inside its last chunk, in percent. It
    takes longer than to fetch a chunk from the store, so it is kept there too."""
    store, made = kept.store(), clip.made
    key = core.disk.digest("joint", VERSION, made) if made and store is not None else None
    found = store.arrays(key) if key else None
    if found is not None and "joint" in found:
        jump, inside = found["joint"].tolist()
    else:
        jump, inside = _measured(clip)
        if key:
            store.keep(key, {"joint": np.array([jump, inside])})
    return {"jump": None if math.isnan(jump) else jump, "inside": inside}


def _measured(clip) -> tuple[float, float]:
    """(Change over the last joint, NaN where there is none; inside the last chunk.)"""
    frames = _small_frames(clip.segments[-1].path)
    inside = _changes(frames)
    ends = [_small_frames(segment.path)[-1] for segment in clip.segments[-2:-1]]
    return (*_changes([*ends, frames[0]]), math.nan)[0], sum(inside) / max(1, len(inside))


def _changes(frames) -> list[float]:
    """How much a pixel changes from each frame to the next, on average, in percent."""
    return [float(100 / 255 * abs(b - a).mean()) for a, b in zip(frames, frames[1:])]


def _server():
    """ComfyUI's server while a browser waits for what it runs, else None."""
    server = getattr(host.optional("server", "PromptServer"), "instance", None)
    return server if server and server.client_id is not None else None


def _send(event: str, values: dict) -> None:
    if server := _server():
        place = {"node": server.last_node_id, "prompt": server.last_prompt_id}
        server.send_sync(event, {**place, **values}, server.client_id)


def _small_frames(path) -> list:
    """Every so many pixels of a chunk's frames, float32 [h w 3]: as they are in the file, for there joints show."""
    return [frame[:: _step(frame), :: _step(frame)].astype("float32") for frame in core.join.video.iter_frames(path)]


def _step(frame) -> int:
    return max(1, max(frame.shape) // core.join.small.SIDE)
