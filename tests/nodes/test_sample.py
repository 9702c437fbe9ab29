"""DMDPyramidSample: what reaches the sampler and what comes out, progress, previews, Stop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helios_video.nodes import host
from support.nodes import Stopped, call, make_history, sample


def test_a_chunk_comes_out_in_raw_vae_space_and_is_appended(fake_helios):
    memory = make_history(fake_helios)
    latent, later = sample(fake_helios, memory, seed=5)
    assert latent["samples"].shape == (1, 16, 9, 16, 8) and latent["samples"].dtype == torch.float32
    chunk = fake_helios.normalise(latent["samples"])
    assert torch.allclose(later.history.window[:, :, -9:], chunk, atol=1e-6)
    assert (memory.history.chunk, later.history.chunk) == (0, 1) and not memory.history.window.any()
    asked = fake_helios.calls[0]
    assert asked["seed"] == 5 and asked["steps"] is None and asked["negative"] is None and asked["start"] is None
    assert (asked["cfg"], asked["solver"], asked["shift_tokens"]) == (0.0, "auto", "before upsample")
    assert (asked["guidance"], asked["zero_steps"], asked["shift_clamp"]) == ("auto", None, False)
    sample(fake_helios, memory, guidance="cfg_zero_star", zero_steps=0, shift_clamp=True, cfg=5.0)
    asked = fake_helios.calls[-1]
    assert (asked["guidance"], asked["zero_steps"], asked["shift_clamp"]) == ("cfg_zero_star", 0, True)


def test_a_start_reaches_the_sampler_as_it_is(fake_helios):
    memory = make_history(fake_helios)
    noise = call("HeliosNoise", history=memory, seed=5)[0]
    small = call("PyramidDownsample", latent=noise)[0]
    sample(fake_helios, memory, seed=5, latent=small, steps="1,2,3")
    assert torch.equal(fake_helios.calls[0]["start"], small["samples"])
    assert fake_helios.calls[0]["steps"] == (1, 2, 3)
    with pytest.raises(ValueError, match=r"coarsest start of this size must be \[1, 16, 9, 4, 2\]"):
        sample(fake_helios, memory, latent=noise)


def test_sampling_refuses_bad_text_and_steps(fake_helios):
    memory = make_history(fake_helios)
    with pytest.raises(ValueError, match="the prompt is empty"):
        sample(fake_helios, memory, text=" ")
    with pytest.raises(ValueError, match="3 stages"):
        sample(fake_helios, memory, steps="2,2")
    with pytest.raises(ValueError, match="positive: this model takes text"):
        call("DMDPyramidSample", model=fake_helios, history=memory, positive=[[torch.zeros(1, 77, 768), {}]])
    with pytest.raises(ValueError, match="negative: wanted one text, got 2"):
        text = [torch.ones(1, 512, 24), {}]
        call("DMDPyramidSample", model=fake_helios, history=memory, positive=[text], negative=[text, text])


def test_comfyui_sees_progress_with_previews(comfyui, fake_helios):
    sample(fake_helios, make_history(fake_helios))
    assert [(value, total) for value, total, _ in comfyui.progress] == [(n, 12) for n in range(1, 13)]
    kind, latent, colours = comfyui.progress[0][2]
    assert kind == "JPEG" and latent.shape == (1, 16, 9, 16, 8), "all frames, for another pack's previewer"
    assert np.shape(colours) == (16, 3), "fitted to this VAE"


def test_a_chunk_that_was_found_again_is_seen_too(comfyui, fake_helios, tmp_path, monkeypatch):
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path))
    for _ in range(2):
        sample(fake_helios, make_history(fake_helios))
    assert [(value, total) for value, total, _ in comfyui.progress[12:]] == [(12, 12)]
    assert comfyui.progress[12][2][0] == "JPEG"


def test_stop_is_honoured_inside_the_block_loop_and_not_swallowed(comfyui, fake_helios):
    comfyui.stop, positive = True, [[torch.ones(1, 512, 24), {}]]
    fake_helios.host.stop = host.stop_check()  # as HeliosLoader gives it
    with pytest.raises(Stopped):
        call("DMDPyramidSample", model=fake_helios, history=make_history(fake_helios), positive=positive)
    assert not comfyui.progress, "it stopped at a step, not inside the loop"
