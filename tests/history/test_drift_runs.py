"""Anti-drift in whole runs: M19 (decoded chunks stay clean), saved and resumed, the command line, the node."""

import dataclasses
import re

import helios_video as pack
import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.cli import main
from helios_video.helios_core.history import saved
from helios_video.helios_core.history.drift import DriftPolicy
from helios_video.helios_core.history.window import History
from helios_video.helios_core.pipeline import ChunkDone
from support.chunks import whole
from support.nodes import call

NODES = pack.NODE_CLASS_MAPPINGS


STEPS = dict(steps=(1, 1, 1), boost_first_chunk=False)
ALWAYS = dict(mean_threshold=0.0, variance_threshold=0.0)


@pytest.fixture(scope="module")
def tiny():
    return load("helios-tiny", weight_dtype="fp32")


def same_history(one, other):
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(History)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def generate(model, policy, chunks=3, **options):
    size = {} if "history" in options else dict(width=64, height=64)
    events = model.generate(
        "a red circle moving left", frames=33 * chunks, seed=7, drift=policy, **size, **STEPS, **options
    )
    return [event for event in whole(events) if isinstance(event, ChunkDone)]


def test_m19_decoded_chunks_are_the_sampled_ones(tiny):
    """Frames come of the chunk as sampled; the correction shows from the next chunk on."""
    plain, off = generate(tiny, None), generate(tiny, DriftPolicy(**ALWAYS))
    anchored = generate(tiny, DriftPolicy("anchor", 1.0, **ALWAYS))
    for a, b in zip(plain, off, strict=True):
        assert torch.equal(a.latent, b.latent) and np.array_equal(a.frames, b.frames)
        assert a.drift == "" and a.history.moments is None and b.drift.startswith(f"chunk {b.chunk + 1}: ")
    same = [torch.equal(a.latent, b.latent) for a, b in zip(plain, anchored, strict=True)]
    assert same == [True, True, False] and np.array_equal(plain[1].frames, anchored[1].frames)
    for done in anchored:
        assert np.array_equal(done.frames, tiny.decode(done.latent))
    assert not torch.equal(anchored[1].history.window[:, :, -9:], anchored[1].latent)


@pytest.mark.parametrize("policy", ["corrupt", "renormalise", "anchor"])
def test_a_resumed_run_with_moments_is_the_uninterrupted_one(tiny, tmp_path, policy):
    """Saved after chunk 2, read and gone on with: the same chunks, moments and findings."""
    policy = DriftPolicy(policy, **ALWAYS)
    whole = generate(tiny, policy)
    file = saved.write(tmp_path / "run.safetensors", whole[1].history, seed=7, config=tiny.config)
    back = saved.read(file, tiny.config, tiny.backend.array)
    (last,) = generate(tiny, policy, 1, history=back.history)
    assert torch.equal(last.latent, whole[2].latent) and last.drift == whole[2].drift
    assert same_history(last.history, whole[2].history) and last.history.newest_moments is not None


def test_a_short_history_is_refused_before_anything_is_loaded(tiny):
    model = load("helios-tiny")
    with pytest.raises(ValueError, match="remembers 7 latent frames"):
        model.generate("a", drift=DriftPolicy(), history=model.history(64, 64, sizes=(4, 2, 1)))
    assert not model.parts.loaded.networks


def test_the_command_line_tells_and_resumes(tmp_path, monkeypatch, capsys):
    """--anti-drift reports every chunk, keeps moments in the saved run, and goes on as if never stopped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HELIOS_CACHE", "off")
    base = "generate --prompt circle --steps 1,1,1 --weight-dtype fp32 --anti-drift".split()
    assert main([*base, "anchor:0.7", "--frames", "99", "--save-history", "whole.safetensors"]) == 0
    told = re.findall(r"chunk \d: .*?drift, history .*?thresholds 0.15 0.15", capsys.readouterr().err)
    assert len(told) == 3 and told[0].startswith("chunk 1: no drift")
    assert main([*base, "anchor:0.7", "--frames", "66", "--save-history", "half.safetensors"]) == 0
    resume = ["--resume", "half.safetensors", "--save-history", "half.safetensors"]
    assert main([*base, "anchor:0.7", "--frames", "33", *resume]) == 0
    model = load()
    half, whole = (saved.read(f"{name}.safetensors", model.config, model.backend.array) for name in ("half", "whole"))
    assert same_history(half.history, whole.history) and half.history.moments is not None
    capsys.readouterr()
    assert main([*base, "anchor:x"]) == 2 and "wanted POLICY or POLICY:STRENGTH" in capsys.readouterr().err


@pytest.fixture
def chunk(fake_helios):
    """The node's inputs: what DMDPyramidSample gives after two chunks of the stand-in."""
    text = call("T5Encode", text_encoder=fake_helios.text, text="a red circle")[0]
    memory = call("HistoryMemory", model=fake_helios, width=64, height=64)[0]
    inputs = dict(model=fake_helios, positive=text, seed=1)
    first = call("DMDPyramidSample", history=memory, **inputs)[1]
    latent, memory = call("DMDPyramidSample", history=call("AntiDrift", history=first)[0], **inputs)
    return latent, memory


def test_the_node_measures_by_default_and_gives_the_sampled_chunk(chunk):
    latent, memory = chunk
    after, same, report = call("AntiDrift", history=memory)
    assert torch.equal(same["samples"], latent["samples"]) and same["samples"].dtype == torch.float32
    assert torch.equal(after.history.window, memory.history.window) and "history left as it is" in report
    assert after.history.moments.shape == (1, 16, 2) and after.chunk_frames == 9


@pytest.mark.parametrize("policy", ["corrupt", "renormalise", "anchor"])
def test_the_nodes_corrected_chunk_is_the_historys_in_raw_space(fake_helios, chunk, policy):
    latent, memory = chunk
    inputs = dict(history=memory, policy=policy, strength=0.3, mean_threshold=0.0, variance_threshold=0.0, seed=4)
    after, changed, report = call("AntiDrift", **inputs)
    assert f"({policy}, strength 0.3)" in report and not torch.equal(changed["samples"], latent["samples"])
    assert torch.equal(changed["samples"], fake_helios.denormalise(after.history.window[:, :, -9:]))
    again = call("AntiDrift", **{**inputs, "seed": 5})[1]["samples"]
    assert torch.equal(again, changed["samples"]) is (policy != "corrupt")
    assert call("DMDPyramidSample", model=fake_helios, positive=[[torch.ones(1, 512, 24), {}]], history=after)


def test_the_node_refuses_what_it_cannot_measure(fake_helios):
    with pytest.raises(ValueError, match="the history holds no chunk yet"):
        call("AntiDrift", history=call("HistoryMemory", model=fake_helios)[0])
    latent = {"samples": torch.randn(1, 16, 9, 8, 8)}
    short = call("HistoryMemory", model=fake_helios, latent=latent, history_sizes="4,2,1")[0]
    with pytest.raises(ValueError, match="remembers 7 latent frames, a chunk has 9"):
        call("AntiDrift", history=short)


def test_the_node_knows_nothing_of_other_runs(fake_helios):
    """Two videos in one graph: each node's report is that of its own run, in whatever order they execute."""

    def video(scale):
        latent = {"samples": torch.randn(1, 16, 18, 8, 8, generator=torch.Generator().manual_seed(1)) * scale}
        return call("HistoryMemory", model=fake_helios, latent=latent)[0]

    one, other = video(1.0), video(5.0)
    alone = call("AntiDrift", history=one)[2]
    call("AntiDrift", history=other, policy="anchor")
    assert call("AntiDrift", history=one)[2] == alone
