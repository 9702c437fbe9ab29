"""Which components are there together: what auto decides, what is let go, what a host is told."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import load as load_module
from helios_video.helios_core.devices import Host, decoding, host_free, residency
from helios_video.helios_core.with_loras import with_loras


def run(helios, chunks=1):
    history, found = helios.history(64, 64), []
    text = torch.linspace(0, 1, 512 * 64).view(1, 512, 64)
    for _ in range(chunks):
        *_, step = helios.sample(history, text, seed=3, steps=(1, 1, 1))
        history = history.append(step.latent)
        found += [step.latent, torch.from_numpy(helios.decode(step.latent).copy())]
    return found


def test_sequential_holds_one_component_and_forgets_the_others():
    helios = load(offload="sequential", cache_folder=None)
    for name in residency.PARTS:
        one = weakref.ref(getattr(helios.parts, name))
        other = next(n for n in residency.PARTS if n != name)
        getattr(helios.parts, other)
        gc.collect()
        assert one() is None, f"{name} is still there beside {other}"
    found = run(helios, chunks=2)
    assert list(helios.parts.loaded.networks) == ["vae"]
    assert all(map(torch.equal, found, run(load(offload="none"), chunks=2)))


def test_sequential_forgets_what_another_handle_holds(monkeypatch):
    helios = load(offload="sequential")
    handle = with_loras(helios, [])
    one = weakref.ref(handle.parts.transformer)
    assert helios.parts.vae is not None
    gc.collect()
    assert one() is None and list(handle.parts.loaded.networks) == ["vae"]


def test_blocks_keeps_the_transformer_beside_one_other():
    helios = load(offload="blocks")
    assert helios.parts.transformer.streamer is not None
    assert helios.parts.text_encoder is not None and helios.parts.vae is not None
    assert list(helios.parts.loaded.networks) == ["transformer", "vae"]
    assert load(offload="none").parts.transformer.streamer is None


def test_blocks_stay_as_the_first_video_leaves_room_and_fewer_for_larger_ones(monkeypatch):
    helios, kept = load(offload="blocks"), []
    parts, stream = helios.parts, helios.parts.transformer.streamer
    real, keep = parts.estimate, stream.keep
    monkeypatch.setattr(parts, "estimate", lambda *size: replace(real(*size), cpu=False))
    monkeypatch.setattr(stream, "keep", lambda model, count: (kept.append(count), keep(model, count)))
    least = replace(real(64, 64), cpu=False)
    free = least.device("blocks") + least.spare + 2 * least.block - stream.held(parts.transformer)
    monkeypatch.setattr(parts.backend, "free_memory", lambda device: free)
    for size in ((64, 64), (64, 64), (128, 128), (64, 64)):
        parts.ready("transformer", *size)
    assert kept[0] == 2 and len(kept) == 2 and kept[1] < 2
    monkeypatch.setattr(parts.backend, "free_memory", lambda device: None)
    parts.ready("transformer", 256, 256)
    assert kept[2:] == [0]


def test_none_lets_the_text_encoder_go_as_sampling_begins():
    """It is not counted beside the transformer; one that is loaded later must fit beside what is there."""
    helios = load(offload="none")
    assert all(getattr(helios.parts, name) is not None for name in ("text_encoder", "transformer", "vae"))
    assert list(helios.parts.loaded.networks) == ["transformer", "vae"]
    assert helios.parts.text_encoder is not None and len(helios.parts.loaded.networks) == 3


def test_a_host_is_told_of_a_batchs_work():
    told = []

    class Told(Host):
        def using(self, name, network, work):
            told.append((name, work))

    helios = load(host=Told())
    history, text = helios.history(64, 64, batch=3), torch.zeros(1, 512, 64)
    list(helios.sample(history, text, seed=0, steps=(1, 1, 1)))
    helios.parts.ready("vae", 64, 64, 3)
    work = helios.parts.estimate(64, 64, 3).work
    assert told == [("transformer", work["transformer"]), ("vae", 3 * work["vae"])]


def test_auto_is_decided_by_the_free_memory(monkeypatch):
    helios = load()
    needs = helios.parts.estimate()
    for free, mode in ((needs.device("none"), "none"), (needs.device("none") - 1, "sequential")):
        monkeypatch.setattr(helios.backend, "free_memory", lambda device, free=free: free)
        helios.parts.loaded.mode = ""
        assert helios.parts.offload_mode == mode
        assert ("warning" in helios.parts.needs()[-1]) == (host_free() < needs.host(mode))


def test_a_text_encoder_too_large_for_the_device_runs_on_the_cpu(monkeypatch):
    helios = load()
    whole = helios.parts.estimate()
    elsewhere = replace(whole, cpu=False)
    monkeypatch.setattr(helios.parts, "estimate", lambda *size: elsewhere)
    monkeypatch.setattr(helios.parts, "device", torch.device("meta"))
    enough = whole.parts["text_encoder"] + max(whole.work.values())  # what is there must be able to go on computing
    for free, place in ((enough - 1, "cpu"), (enough, "meta")):
        monkeypatch.setattr(helios.backend, "free_memory", lambda _, free=free: free)
        assert residency.place(helios.parts, "text_encoder").type == place


@pytest.mark.parametrize("options", [{"offload": "disk"}, {"vae_dtype": "int8"}, {"vae_tiling": "yes"}])
def test_unknown_choices_are_refused(options):
    with pytest.raises(ValueError, match="wanted one of"):
        load(**options)


def test_the_vae_in_bf16_and_in_tiles(monkeypatch):
    whole = load()
    *_, step = whole.sample(whole.history(128, 128), torch.zeros(1, 512, 64), seed=1, steps=(1, 1, 1))
    frames = whole.decode(step.latent)
    half = load(vae_dtype="bf16")
    assert half.parts.vae.dtype == torch.bfloat16
    assert psnr(half.decode(step.latent), frames) > 40
    tiled = load(vae_tiling="on")
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "TILES", (12,))
        assert 20 < psnr(tiled.decode(step.latent), frames) < 99
    auto = load()
    monkeypatch.setattr(load_module, "free_memory", lambda _: 1000)
    assert load_module.find_tile(auto.parts.vae, step.latent.shape) == 16


def psnr(a, b) -> float:
    return (20 * torch.log10(255 / (torch.tensor(a).double() - torch.tensor(b)).square().mean().sqrt())).item()
