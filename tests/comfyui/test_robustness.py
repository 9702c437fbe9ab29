"""The robustness node on ComfyUI's own VAE objects, in ComfyUI's Python, without its server: small random networks."""

from __future__ import annotations

import json
import subprocess

import pytest
from support.comfyui import COMFYUI, NEEDED, PYTHON, ROOT

pytestmark = NEEDED
SCRIPT = """
import importlib.util, json, os, sys
root, comfyui = sys.argv[1:]
sys.path.insert(0, comfyui)
sys.argv = ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import torch, comfy.sd
from comfy.ldm.wan.vae import WanVAE
spec = importlib.util.spec_from_file_location(
    "helios_video", os.path.join(root, "__init__.py"), submodule_search_locations=[root]
)
module = importlib.util.module_from_spec(spec)
sys.modules["helios_video"] = module
spec.loader.exec_module(module)
torch.manual_seed(0)
torch.set_num_threads(1)

def picture_vae():
    sizes = dict(double_z=True, z_channels=4, resolution=32, in_channels=3, out_ch=3, ch=32, ch_mult=[1, 2])
    sizes |= dict(attn_resolutions=[], dropout=0.0, num_res_blocks=1)
    vae = comfy.sd.VAE(sd={}, config={"params": {"ddconfig": sizes, "embed_dim": 4}})
    vae.downscale_ratio = vae.upscale_ratio = 2
    return vae

def narrow_vae():
    vae = picture_vae()
    vae.process_input = vae.process_output = lambda image: image
    return vae

def video_vae():
    vae = picture_vae()
    vae.first_stage_model = WanVAE(dim=8, z_dim=16, num_res_blocks=1, temperal_downsample=[False, True, True]).eval()
    devices = dict(load_device=vae.patcher.load_device, offload_device=vae.patcher.offload_device)
    vae.patcher = comfy.model_patcher.ModelPatcher(vae.first_stage_model, **devices)
    vae.latent_dim, vae.latent_channels = 3, 16
    vae.upscale_ratio = (lambda a: max(0, a * 4 - 3), 8, 8)
    vae.upscale_index_formula = (4, 8, 8)
    vae.downscale_ratio = (lambda a: max(0, (a + 3) // 4), 8, 8)
    vae.downscale_index_formula = (4, 8, 8)
    return vae

def tell(make, images):
    from helios_video.nodes.codecs import codec
    from helios_video.helios_core.measure import probe
    with torch.inference_mode():  # as ComfyUI runs nodes
        vae = make()
        for p in vae.first_stage_model.parameters():
            p.data = torch.randn_like(p) * (p[0].numel() ** -0.5 if p.ndim > 1 else 0.1)
        made = codec(vae, images.shape[2], images.shape[1])
        node = module.NODE_CLASS_MAPPINGS["HeliosLatentRobustness"]()
        report, plots, heat = node.probe(vae=vae, images=images, probes=2)
        part = probe.pieces(images.numpy(), made, probe.ProbeSettings())[0]
        mean, logvar = made.encode(part)
        z = vae.encode(images[: part.shape[2]])
        direction = torch.randn(mean.shape, generator=torch.Generator().manual_seed(1)).numpy()
        seen = []
        def draw(shape):
            seen.append(torch.randn(shape, generator=torch.Generator().manual_seed(2)).numpy())
            return seen
        pulled = made.pull(mean, draw)[0]
        step = 1e-3
        video = vae.latent_dim == 3
        five = lambda x: x if video else x.movedim(0, 1)[None]
        own = lambda x: x if video else x[0].movedim(1, 0)
        raw = lambda x: five(vae.first_stage_model.decode(own(torch.from_numpy(x))))
        change = (raw(mean + step * direction) - raw(mean - step * direction)) / (2 * step)
        decoded = vae.decode(z)
        shown = (torch.from_numpy(made.decode(mean)).movedim(1, -1) + 1) / 2
    return {
        "mean off": float(abs(torch.from_numpy(mean) - five(z)).max() / z.std()),
        "logvar": None if logvar is None else list(logvar.shape),
        "mean": list(mean.shape),
        "transposed": [float((pulled * direction).sum()), float((seen[0] * change.numpy()).sum())],
        "plots": list(plots.shape), "heat": list(heat.shape), "lines": len(report.splitlines()),
        "frozen": bool(next(vae.first_stage_model.parameters()).is_inference()),
        "decoded": float(abs(shown - decoded).max()),
    }

images = torch.rand(5, 16, 16, 3, generator=torch.Generator().manual_seed(0))
print(json.dumps([tell(make, images) for make in (picture_vae, video_vae, narrow_vae)]))
"""


def test_the_node_probes_comfyuis_own_vaes():
    """J^T r against a finite difference of the decoder, posteriors where they are told, weights of inference mode."""
    command = [PYTHON, "-c", SCRIPT, str(ROOT), COMFYUI]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=COMFYUI)
    assert done.returncode == 0, done.stderr[-3000:]
    picture, video, narrow = json.loads(done.stdout.strip().splitlines()[-1])
    assert picture["mean"] == picture["logvar"] == [1, 4, 5, 8, 8]
    assert video["mean"] == video["logvar"] == [1, 16, 2, 2, 2]
    assert narrow["transposed"][0] == pytest.approx(2 * narrow["transposed"][1], rel=0.02, abs=0.02)
    for found in (picture, video):
        assert found["frozen"] and found["mean off"] < 1e-4 and found["decoded"] < 1e-3, found
        assert found["transposed"][0] == pytest.approx(found["transposed"][1], rel=0.02, abs=0.02)
        assert found["heat"] == [1, 16, 16, 3] and found["plots"][3] == 3
        assert found["lines"] == 8 + found["mean"][1]
