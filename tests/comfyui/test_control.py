"""HeliosControl on ComfyUI's own engine: the same latents as the core's, in the chunks that it is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.control import encode_clip
from helios_video.helios_core.with_control import with_control
from support.comfyui import NEEDED, PROBE_LATENT, messages
from support.control import adapter

pytestmark = NEEDED
PROBES = PROBE_LATENT + "\nNODE_CLASS_MAPPINGS = {'ProbeLatent': ProbeLatent}\n"
COLOUR = (255, 128, 64)


def two_chunks(**control) -> dict:
    """A prompt that keeps both chunks' latents. control: inputs of HeliosControl beside model and pictures; or none."""
    prompt = {"0": {"class_type": "HeliosLoader", "inputs": {"model": "helios-tiny", "weight_dtype": "fp32"}}}
    last = ["0", 0]
    if control:
        colour = COLOUR[0] * 65536 + COLOUR[1] * 256 + COLOUR[2]
        picture = {"width": 64, "height": 64, "batch_size": 66, "color": colour}
        prompt["i"] = {"class_type": "EmptyImage", "inputs": picture}
        inputs = {"model": last, "control": ["i", 0], "adapter": "control.safetensors", "policy": "from adapter"}
        prompt["c"] = {"class_type": "HeliosControl", "inputs": {**inputs, "end_chunk": -1, **control}}
        last = ["c", 0]
    text = {"text": "a red circle moving left", "text_encoder": ["0", 1]}
    prompt["t"] = {"class_type": "T5Encode", "inputs": text}
    prompt["h"] = {"class_type": "HistoryMemory", "inputs": {"model": last, "width": 64, "height": 64}}
    history = ["h", 0]
    for k in (0, 1):
        inputs = {"model": last, "positive": ["t", 0], "history": history, "seed": 0, "steps": "1,1,1"}
        prompt[f"s{k}"] = {"class_type": "DMDPyramidSample", "inputs": inputs}
        prompt[f"p{k}"] = {"class_type": "ProbeLatent", "inputs": {"latent": [f"s{k}", 0], "name": f"chunk{k}"}}
        history = [f"s{k}", 1]
    return prompt


def sampled(server, prompt: dict) -> list[np.ndarray]:
    entry = server.run(prompt)
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    return [np.load(server.base / "output" / f"chunk{k}.npy") for k in (0, 1)]


def own(helios) -> list[np.ndarray]:
    """The same by the core alone."""
    history, made = helios.history(64, 64), []
    with torch.inference_mode():
        for _ in range(2):
            *_, step = helios.sample(history, helios.text("a red circle moving left"), seed=0, steps=(1, 1, 1))
            history = history.append(step.latent)
            made.append(helios.denormalise(step.latent).numpy())
    return made


def error(a, b) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("lora", [False, True])
def test_a_control_with_and_without_a_lora_in_each_chunk(server, lora):
    tiny = load("helios-tiny", backend="torch", weight_dtype="fp32")
    place = server.base / "models" / "controlnet"
    place.mkdir(exist_ok=True)
    file = adapter(place, tiny.config.transformer, lora=lora)
    plain = own(tiny)
    for got, wanted in zip(sampled(server, two_chunks()), plain):
        assert error(got, wanted) < 1e-5
    frames = np.full((66, 64, 64, 3), COLOUR, np.uint8)
    z = encode_clip(tiny, frames, 64, 64)
    for first in (0, 1):
        wanted = own(with_control(tiny, file, z, strength=0.5, first=first))
        got = sampled(server, two_chunks(strength=0.5, start_chunk=first))
        assert error(got[0], wanted[0]) < 2e-3 and error(got[1], wanted[1]) < 2e-3, (first, lora)
        assert error(wanted[1], plain[1]) > 0.02 and (error(wanted[0], plain[0]) > 0.02) == (first == 0)
    got = sampled(server, two_chunks(strength=0.0, start_chunk=0))
    assert error(got[0], plain[0]) < 1e-5 and error(got[1], plain[1]) < 1e-5
