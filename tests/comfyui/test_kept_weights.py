"""In the real server: what is quantised on load is kept in ComfyUI's user folder, found again, and has a bar."""

from __future__ import annotations

import numpy as np
import pytest
from support.comfyui import NEEDED, messages

pytestmark = NEEDED

PROBES = """
import numpy, os, sys, folder_paths


def ours(name):
    return next(module for found, module in sys.modules.items() if found.endswith(name))


class Probe:
    @classmethod
    def INPUT_TYPES(cls):
        ours("helios_core.devices.kept_weights").WORTH = 0
        ours(".nodes.live").READING_DELAY = 0
        return {"required": {"latent": ("LATENT",), "name": ("STRING", {"default": "x"})}}

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "keep", "probes", True

    def keep(self, latent, name):
        numpy.save(os.path.join(folder_paths.get_output_directory(), name), latent["samples"].numpy())
        return {}


NODE_CLASS_MAPPINGS = {"Probe": Probe}
"""


def chunk(kind: str, name: str) -> dict:
    """A prompt for one chunk, kept under a name."""
    prompt = {"0": {"class_type": "HeliosLoader", "inputs": {"model": "helios-tiny", "weight_dtype": kind}}}
    text = {"text": "a red circle moving left", "text_encoder": ["0", 1]}
    prompt["t"] = {"class_type": "T5Encode", "inputs": text}
    prompt["h"] = {"class_type": "HistoryMemory", "inputs": {"model": ["0", 0], "width": 64, "height": 64}}
    inputs = {"model": ["0", 0], "positive": ["t", 0], "history": ["h", 0], "seed": 0, "steps": "1,1,1"}
    prompt["s"] = {"class_type": "DMDPyramidSample", "inputs": inputs}
    prompt["p"] = {"class_type": "Probe", "inputs": {"latent": ["s", 0], "name": name}}
    return prompt


def run(server, kind: str, name: str) -> np.ndarray:
    entry = server.run(chunk(kind, name))
    assert entry["status"]["status_str"] == "success", messages(entry, "execution_error")
    return np.load(server.base / "output" / f"{name}.npy")


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_what_is_quantised_is_kept_and_found_again(server, kind):
    folder, log = server.base / "user" / "helios" / "weights", server.base / "log.txt"
    before = set(folder.glob("*")) if folder.is_dir() else set()
    first = run(server, kind, f"{kind} first")
    (made,) = set(folder.glob("*")) - before
    assert f"are kept in {made}" in log.read_text()
    stamp = made.stat().st_mtime_ns
    server.post("/free", {"unload_models": True, "free_memory": True})
    run(server, "bf16", f"{kind} other")
    again = run(server, kind, f"{kind} again")
    assert np.array_equal(first, again) and made.stat().st_mtime_ns >= stamp
    assert set(folder.glob("*")) - before == {made} and log.read_text().count(f"are kept in {made}") == 1
