"""HeliosControl: what it takes, chains and reports; outside ComfyUI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.nodes.control import HeliosControl
from support.control import adapter, latents, sampled

CLIP = torch.zeros(70, 64, 64, 3)
CLIP[:, 20:40, 20:40] = 1


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "controlnet").mkdir(parents=True)
    adapter(tmp_path / "models" / "controlnet", load().config.transformer, lora=True)
    return tmp_path


def node(model, **more):
    inputs = {"adapter": "control.safetensors", "strength": 1.0, "start_chunk": 0, "end_chunk": -1}
    return HeliosControl().apply(model=model, **{**inputs, "policy": "from adapter", **more})


def test_it_offers_adapters_chains_and_reports(here):
    assert HeliosControl.INPUT_TYPES()["required"]["adapter"][0][1:] == ["control.safetensors"]
    helios = load(backend="torch")
    plain = sampled(helios)
    one, report = node(helios, control=CLIP)
    assert report == (
        "control.safetensors (mask) at 1, content: chunks 0 to 1\n"
        "control: the last 4 frames fill no chunk of 33 and are left out"
    )
    assert not np.array_equal(sampled(one), plain) and one.parts is helios.parts
    none, report = node(helios, control=CLIP, strength=0.0)
    assert np.array_equal(sampled(none), plain) and "no chunk" in report
    two, _ = node(one, control=CLIP, start_chunk=1, end_chunk=1)
    assert len(two.controls) == 2 and np.array_equal(sampled(two), sampled(one))


def test_latents_of_a_vae_are_the_same_as_the_pictures(here):
    helios = load(backend="torch")
    z, _ = node(helios, control=CLIP)[0], None
    raw = helios.denormalise(z.controls[0].latents)
    again, _ = node(helios, latent={"samples": raw})
    assert torch.allclose(again.controls[0].latents, z.controls[0].latents, atol=1e-5)


def test_refusals(here):
    helios = load(backend="torch")
    with pytest.raises(ValueError, match="wire one of control"):
        node(helios)
    with pytest.raises(ValueError, match="wire one of control"):
        node(helios, control=CLIP, latent={"samples": latents(helios)})
    with pytest.raises(ValueError, match="at least 33 frames"):
        node(helios, control=CLIP[:5])
    with pytest.raises(ValueError, match="no file named 'gone.safetensors' in controlnet"):
        node(helios, control=CLIP, adapter="gone.safetensors")
