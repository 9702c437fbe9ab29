"""ComfyUI's memory management with a 14B model over a simulated GPU (simulated_gpu.py): what moves, what fits."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import helios_video as pack
import pytest
from support.comfyui import COMFYUI, NEEDED, PYTHON

pytestmark = [*NEEDED, pytest.mark.skipif(not shutil.which("g++"), reason="no g++ to compile torch's guard with")]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A function from (GiB, dtype, state) to the report."""
    parent = tmp_path_factory.mktemp("parent")
    (parent / "helios_video").symlink_to(Path(pack.__file__).parent, target_is_directory=True)

    def run(*options) -> dict:
        script = Path(__file__).with_name("simulated_gpu.py")
        command = [PYTHON, str(script), COMFYUI, str(parent), *map(str, options)]
        made = subprocess.run(command, capture_output=True, text=True)
        assert "REPORT" in made.stdout, made.stderr[-2000:]
        return json.loads(made.stdout.rpartition("REPORT")[2])

    return run


@pytest.mark.parametrize(("gib", "dtype", "moved"), [(32, "bf16", 3), (16, "fp8_e4m3fn", 8), (8, "int4", 12)])
def test_a_second_chunk_moves_only_what_had_to_make_room(simulated, gib, dtype, moved):
    """32 GiB: of 26.7 the decoder's room alone. 16 and 8: what does not fit streams too, once a forward."""
    report = simulated(gib, dtype)
    first, second = report["chunks"]
    assert second["moved"].get("in", 0) < moved, "GiB from host to device"
    assert max(first["peak"], second["peak"]) < gib
    assert second["loaded"]["HeliosModel"] > 0.9 * min(report["size"], gib - 8.5), "as much stays as there is room for"


@pytest.mark.parametrize("dtype", ["bf16", "int8"])
def test_dynamic_vram_keeps_what_fits_and_lets_go_of_what_was_used(simulated, dtype):
    """Half of 16 GiB is the stand-in's for weights; ComfyUI 0.3.64 has no dynamic VRAM."""
    if not (Path(COMFYUI) / "comfy" / "model_prefetch.py").is_file():
        pytest.skip("this ComfyUI has no dynamic VRAM")
    report = simulated(16, dtype, "dynamic")
    _, second = report["chunks"]
    resident = second["loaded"]["HeliosModel"]
    assert resident > 7.8 and second["peak"] < 13 and report["pins"] == 0
    passes = report["forwards"] + 0.2  # and once the layers of the prompt's keys and values
    assert second["moved"]["in"] < 1.02 * passes * (report["size"] - resident + 0.3)


def test_the_user_may_have_it_stream_in_whole(simulated):
    report = simulated(32, "bf16", "novram")
    assert report["chunks"][1]["loaded"]["HeliosModel"] == 0 and report["chunks"][1]["peak"] < 8
