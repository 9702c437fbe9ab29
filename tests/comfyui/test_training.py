"""HeliosTrainLora in ComfyUI's Python, in inference mode as ComfyUI runs nodes, under its memory management."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from support.comfyui import COMFYUI, NEEDED, PYTHON, ROOT

pytestmark = NEEDED
SCRIPT = """
import importlib.util, json, os, sys
root, comfyui, base = sys.argv[1:]
sys.path.insert(0, comfyui)
sys.argv = ["main.py", "--cpu", "--base-directory", base]
import comfy.options
comfy.options.enable_args_parsing()
import torch, folder_paths, comfy.model_management, server
spec = importlib.util.spec_from_file_location(
    "helios_video", os.path.join(root, "__init__.py"), submodule_search_locations=[root]
)
module = importlib.util.module_from_spec(spec)
sys.modules["helios_video"] = module
spec.loader.exec_module(module)
torch.set_num_threads(1)
node = module.NODE_CLASS_MAPPINGS["HeliosTrainLora"]
assert "mine" in node.INPUT_TYPES()["required"]["folder"][0]
given = dict(model="helios-tiny", folder="mine", steps=2, rank=2, output_name="learnt", sample_every=1)
from helios_video.helios_core.training.lora import run
run.VIDEOS = run.KEPT_PROMPTS = 2
steps = []
told = module.nodes.training.NodeWatch.step
def stopping(self, done, total):
    told(self, done, total)
    steps.append(done)
    if len(steps) == 4:  # two files, the first part's step, then the first of two
        comfy.model_management.interrupt_current_processing()
module.nodes.training.NodeWatch.step = stopping
with torch.inference_mode():
    try:
        node().train(**given)
        raise SystemExit("it did not stop")
    except comfy.model_management.InterruptProcessingException:
        pass
    comfy.model_management.interrupt_current_processing(False)
    name, samples, report = node().train(**given)["result"]
print(json.dumps({"name": name, "samples": list(samples.shape), "report": report, "steps": steps}))
"""


@pytest.mark.slow
def test_it_trains_stops_and_goes_on_in_comfyui(tmp_path):
    data = tmp_path / "input" / "mine"
    data.mkdir(parents=True)
    for i in range(2):
        Image.fromarray(np.full((64, 64, 3), 90 * i, np.uint8)).save(data / f"{i}.png")
        (data / f"{i}.txt").write_text("a red circle")
    command = [PYTHON, "-c", SCRIPT, str(ROOT), str(COMFYUI), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["name"] == "learnt.safetensors" and found["samples"][0] == 1 and found["samples"][1] == 64
    assert "2 files, 2 steps, rank 2" in found["report"]
    with safe_open(tmp_path / "models" / "loras" / "learnt.safetensors", "pt") as file:
        assert len(file.keys()) == 80
    assert found["steps"][4:] == [1, 2, 2]  # encoded files are found again, the first part was done, a step was left
