"""Parts that leave the device: into host memory where that suffices, and back without being loaded again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.devices import parts as module

PLENTY = 2**50


@pytest.fixture
def turns(monkeypatch):
    """A pipeline whose parts take turns on a device of its own memory, as far as it is told; with what was moved."""
    helios, moved, loads = load(offload="sequential", weight_dtype="int8"), [], []
    real = helios.parts.estimate
    monkeypatch.setattr(helios.parts, "estimate", lambda *size, **more: replace(real(*size, **more), cpu=False))
    monkeypatch.setattr(
        helios.backend, "place", lambda model, device, **_: moved.append((type(model).__name__, device))
    )
    for name in ("load_transformer", "load_vae"):
        known = getattr(helios.backend, name)
        monkeypatch.setattr(helios.backend, name, lambda *a, f=known, n=name, **k: loads.append(n) or f(*a, **k))
    return helios, moved, loads


def chunks(helios, count):
    history, text = helios.history(64, 64), torch.linspace(0, 1, 512 * 64).view(1, 512, 64)
    for _ in range(count):
        *_, step = helios.sample(history, text, seed=3, steps=(1, 1, 1))
        history = history.append(step.latent)
        helios.decode(step.latent)
    return step.latent


def test_what_host_memory_can_hold_is_loaded_once(turns, monkeypatch):
    helios, moved, loads = turns
    monkeypatch.setattr(module, "host_free", lambda: PLENTY)
    last = chunks(helios, 3)
    assert loads == ["load_transformer", "load_vae"]
    away, back = helios.backend.CPU, helios.parts.device
    assert moved[:4] == [("HeliosTransformer", away), ("WanVAE", away), ("HeliosTransformer", back)] + moved[3:4]
    assert helios.parts.loaded.away == {"transformer"}
    assert torch.equal(last, chunks(load(offload="none", weight_dtype="int8"), 3))


def test_what_it_cannot_hold_is_forgotten(turns, monkeypatch):
    helios, moved, loads = turns
    monkeypatch.setattr(module, "host_free", lambda: 0)
    chunks(helios, 2)
    assert loads == ["load_transformer", "load_vae"] * 2 and not moved and not helios.parts.loaded.away


def test_what_is_released_does_not_come_back_from_there(turns, monkeypatch):
    helios, _, loads = turns
    monkeypatch.setattr(module, "host_free", lambda: PLENTY)
    chunks(helios, 1)
    helios.parts.release("transformer", "vae")
    assert not helios.parts.loaded.away and not helios.parts.loaded.networks
    chunks(helios, 1)
    assert loads == ["load_transformer", "load_vae"] * 2
