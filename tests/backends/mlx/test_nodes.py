"""The nodes on MLX: sockets carry torch's tensors, and what goes round stays MLX's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helios_video import NODE_CLASS_MAPPINGS as NODES
from helios_video.helios_core import load
from support.mlx import error, last
from support.reference import PROMPT

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")


def node(name, **inputs):
    kind = NODES[name]
    return getattr(kind(), kind.FUNCTION)(**inputs)


@pytest.fixture(scope="module")
def graph():
    """A chunk through the nodes: the sockets' values by name."""
    model, encoder, vae = node("HeliosLoader", model="helios-tiny", backend="mlx")
    (positive,) = node("T5Encode", text_encoder=encoder, text=PROMPT)
    (history,) = node("HistoryMemory", model=model, width=64, height=64)
    latent, after = node("DMDPyramidSample", model=model, positive=positive, history=history, seed=4, steps="1,1,1")
    return dict(model=model, encoder=encoder, vae=vae, positive=positive, history=history, latent=latent, after=after)


def test_sockets_carry_torch_tensors(graph):
    z, text = graph["latent"]["samples"], graph["positive"][0][0]
    assert z.dtype == text.dtype == torch.float32 and z.shape == (1, 16, 9, 8, 8) and text.shape[1] == 512
    model = graph["model"]
    want = last(model.sample(model.history(64, 64), model.text(PROMPT), seed=4, steps=(1, 1, 1))).latent
    assert error(z, model.denormalise(want)) < 1e-6
    assert isinstance(graph["after"].history.window, mx.array)


def test_a_graph_goes_on_from_its_own_latents(graph):
    model = graph["model"]
    (history,) = node("HistoryMemory", model=model, width=0, height=0, latent=graph["latent"])
    assert error(history.history.window, graph["after"].history.window) < 1e-5 and history.history.chunk == 1


@pytest.mark.parametrize("start", ["image", "video"])
@pytest.mark.parametrize("model", ["mlx", "torch"])
def test_a_vae_of_the_other_library_encodes_as_the_models_own(model, start):
    """Pictures, mean and standard deviation change libraries; posterior "sample" takes both of the last."""
    loaded = {name: node("HeliosLoader", model="helios-tiny", backend=name) for name in ("mlx", "torch")}
    other, pictures = "torch" if model == "mlx" else "mlx", torch.rand(1 if start == "image" else 33, 64, 64, 3)
    given = {start: pictures, "model": loaded[model][0], "width": 64, "height": 64, "seed": 3}
    own, foreign = (node("HistoryMemory", **given, vae=loaded[name][2])[0].history for name in (model, other))
    assert type(own.window) is type(foreign.window) and type(own.anchor) is type(foreign.anchor)
    assert error(foreign.window, own.window) < 1e-4 and error(foreign.anchor, own.anchor) < 1e-4


@pytest.mark.parametrize("policy", ["off", "corrupt", "renormalise", "anchor"])
def test_drift_is_corrected(graph, policy):
    """The same on MLX as on torch, from the same history and seed; the socket's latent is torch's."""
    kept = graph["after"]
    torchs = replace(kept, array=load(backend="torch").backend.array)
    torchs = replace(torchs, history=replace(kept.history, window=torch.from_numpy(np.array(kept.history.window))))
    made = []
    for history in (kept, torchs):
        for _ in range(2):  # the first measures, the second compares
            options = dict(strength=0.5, mean_threshold=0.0, variance_threshold=0.0, seed=3)
            history, latent, report = node("AntiDrift", history=history, policy=policy, **options)
            chunk = history.array(np.random.default_rng(1).normal(1.0, 2.0, (1, 16, 9, 8, 8)))
            history = history.append(chunk)
        made.append((latent["samples"], report))
    assert isinstance(latent["samples"], torch.Tensor) and made[0][1] == made[1][1]
    assert error(made[0][0], made[1][0]) < 1e-5


def test_schedules_and_negatives_are_taken(graph):
    text = "0: a red circle\n1 (2): a blue square"
    (schedule,) = node("HeliosPromptSchedule", text_encoder=graph["encoder"], text=text)
    more = dict(history=graph["after"], seed=4, steps="1,1,1", negative=graph["positive"], cfg=2.0)
    latent, _ = node("DMDPyramidSample", model=graph["model"], positive=schedule, **more)
    assert latent["samples"].shape == (1, 16, 9, 8, 8) and torch.isfinite(latent["samples"]).all()


def test_the_vae_socket_takes_and_gives_torch(graph):
    """As ComfyUI's VAE Decode and VAE Encode use it, tiled too, and as ChunkConcat streams it."""
    vae, z = graph["vae"], graph["latent"]["samples"][:, :, :1]
    frames = vae.decode(z)
    assert frames.dtype == torch.float32 and frames.shape == (1, 1, 64, 64, 3) and 0 <= frames.min() < frames.max() <= 1
    assert np.array_equal(np.concatenate(list(vae.blocks(z))), (frames[0] * 255).round().byte().numpy())
    assert torch.allclose(vae.decode_tiled(z, 8, 8, 0), frames, atol=1e-5)
    again = vae.encode(frames[0])
    assert again.dtype == torch.float32 and again.shape == z.shape


def test_a_foreign_vae_starts_a_video(graph):
    """ComfyUI's own takes and gives torch tensors."""

    class Foreign:
        def encode(self, frames):
            assert isinstance(frames, torch.Tensor) and frames.shape[1:] == (64, 64, 3)
            return torch.ones(1, 16, (len(frames) - 1) // 4 + 1, 8, 8)

    picture = torch.rand(1, 32, 32, 3)
    options = dict(model=graph["model"], width=64, height=64, image=picture, vae=Foreign())
    (history,) = node("HistoryMemory", **options)
    assert isinstance(history.history.window, mx.array) and history.history.anchor.shape == (1, 16, 1, 8, 8)
