"""Running nodes as ComfyUI does."""

from __future__ import annotations

import helios_video as pack
import torch
from helios_video.helios_core.workflow.format import default, has_widget, inputs_of

NODES = pack.NODE_CLASS_MAPPINGS


def call(name, **inputs):
    """Runs a node as ComfyUI does: a new object, defaults of widgets filled in, under inference mode."""
    kind = NODES[name]
    widgets = {n: default(*spec) for n, spec in inputs_of(kind).items() if has_widget(*spec)}
    with torch.inference_mode():
        given = getattr(kind(), kind.FUNCTION)(**{**widgets, **inputs})
    return given["result"] if isinstance(given, dict) and "result" in given else given


def make_history(helios, **inputs):
    return call("HistoryMemory", model=helios, **inputs)[0]


def sample(helios, memory, text="a red circle", **inputs):
    positive = call("T5Encode", text_encoder=helios.text, text=text)[0]
    return call("DMDPyramidSample", model=helios, positive=positive, history=memory, **inputs)


class Stopped(Exception):
    """Stands for ComfyUI's InterruptProcessingException."""


def images(frames=3, size=16):
    return torch.linspace(0, 1, frames).view(-1, 1, 1, 1).expand(frames, size, size, 3).clone()
