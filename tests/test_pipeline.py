"""The pipeline end to end on a tiny random checkpoint that diffusers saved: parity, determinism, resuming, Stop, NaN.

Parity of the other variants: config/test_variants.py; what is refused: test_pipeline_refusals.py.
Named: C4, M5, M14, M15, M20, M24, F1, S1.
"""

import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from helios_video.helios_core import load, pyramid
from helios_video.helios_core.backends.torch.load import DTYPES
from helios_video.helios_core.steps.denoise import SampleStep
from support.reference import HEIGHT, PROMPT, SEED, VARIANTS, WIDTH, build, compare, error, run_oracle, run_ours

# diffusers gives numpy torch scalars
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """(folder, diffusers pipeline): a Distilled checkpoint as published, the transformer in several shards."""
    folder = tmp_path_factory.mktemp("distilled")
    oracle = build("distilled", folder)[1]
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    return folder, oracle


@pytest.fixture(scope="module")
def helios(distilled):
    return load(distilled[0])


@pytest.fixture
def fresh(distilled):
    """Nothing of it is loaded yet."""
    return load(distilled[0])


def test_parity_of_the_distilled_pipeline(distilled, helios, monkeypatch):
    """Three chunks, the first amplified; text, pyramid, DMD, history, anchor and decoding together."""
    want, frames = run_oracle(monkeypatch, distilled[1], 3, **VARIANTS["distilled"].call)
    steps, done = run_ours(helios, 3)
    assert [len(s) for s in steps] == [len(w) for w in want] == [12, 6, 6]
    assert len(frames) == 97 and sum(len(d.frames) for d in done) == 99
    compare(helios, want, frames, steps, done)


FRESH = """
import hashlib, sys, torch
torch.set_num_threads(1)
from helios_video.helios_core import load
model = load(sys.argv[1])
for seed in (7, 8):
    *_, done = model.generate(sys.argv[2], width=128, height=64, frames=33, seed=seed)
    print(hashlib.sha256(done.latent.numpy().tobytes() + b"".join(x.tobytes() for x in done.frames)).hexdigest())
"""


def digest(done):
    return hashlib.sha256(done.latent.numpy().tobytes() + b"".join(x.tobytes() for x in done.frames)).hexdigest()


def test_m24_same_seed_same_bytes_in_a_fresh_process(distilled, helios):
    command = [sys.executable, "-c", FRESH, str(distilled[0]), PROMPT]
    same, other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert same == digest(run_ours(helios, 1)[1][0]) == digest(run_ours(load(distilled[0]), 1)[1][0])
    assert other != same


def test_s1_global_generators_play_no_part(helios):
    torch.manual_seed(1)
    np.random.seed(1)
    first = run_ours(helios, 1)[1][0]
    torch.manual_seed(2)
    np.random.seed(2)
    assert digest(run_ours(helios, 1)[1][0]) == digest(first)


def test_s1_every_draw_depends_on_the_seed(helios):
    """With the start given, another seed still changes the jumps' block noise."""
    history, text = helios.history(WIDTH, HEIGHT), helios.text(PROMPT)
    start = pyramid.downsample(helios.noise(history, 1))
    last = [list(helios.sample(history, text, seed=seed, start=start))[-1].latent for seed in (1, 1, 2)]
    assert torch.equal(last[0], last[1]) and error(last[2], last[0]) > 0.1
    assert torch.equal(list(helios.sample(history, text, seed=1))[-1].latent, last[0])


def test_a_chunk_resumes_from_its_history(helios):
    """Chunk 3 alone, from the first two chunks' latents, is chunk 3 of the whole run, bit for bit."""
    whole = run_ours(helios, 3)[1]
    history = helios.history(WIDTH, HEIGHT)
    for done in whole[:2]:
        history = history.append(done.latent.clone())
    (third,) = run_ours(helios, 1, history=history)[1]
    assert third.chunk == 2 and digest(third) == digest(whole[2])
    assert error(whole[2].latent, whole[1].latent) > 0.1


def test_c4_t2v_history_of_the_first_chunk_is_exactly_zero(helios, monkeypatch):
    """And full resolution in every chunk, built once per chunk (M5)."""
    seen, real = [], helios.parts.transformer.history_context
    monkeypatch.setattr(helios.parts.transformer, "history_context", lambda parts: seen.append(parts) or real(parts))
    done = run_ours(helios, 2)[1]
    assert len(seen) == 2
    assert all((part == 0).all() for part in seen[0][:3])
    assert [tuple(part.shape[2:]) for part in seen[0][:3]] == [(16, 8, 16), (2, 8, 16), (2, 8, 16)]
    assert torch.equal(seen[1].short, done[0].latent[:, :, [0, 8]])
    assert torch.equal(seen[1].mid, done[0].latent[:, :, 6:8])
    assert (seen[1].long[:, :, :10] == 0).all() and torch.equal(seen[1].long[:, :, 10:], done[0].latent[:, :, :6])


def test_m20_distilled_runs_one_forward_per_step(helios, monkeypatch):
    calls, real = [], helios.parts.transformer.velocity
    monkeypatch.setattr(helios.parts.transformer, "velocity", lambda *a: calls.append(a[1]) or real(*a))
    run_ours(helios, 1, boost_first_chunk=False)
    assert len(calls) == 6
    run_ours(helios, 1, boost_first_chunk=False, cfg=2.0)
    assert len(calls) == 6 + 12


def test_m14_nine_latents_are_33_frames(helios):
    z = helios.noise(helios.history(WIDTH, HEIGHT), 3)
    frames = helios.decode(z)
    assert frames.shape == (33, HEIGHT, WIDTH, 3) and frames.dtype == np.uint8
    first = helios.decode(z[:, :, :1])
    assert first.shape[0] == 1 and np.abs(first[0].astype(int) - frames[0]).max() <= 1


def test_m15_each_chunk_is_decoded_alone(helios):
    """What was decoded before leaves no trace; decoding two chunks as one would."""
    a, b = (helios.noise(helios.history(WIDTH, HEIGHT), seed) for seed in (3, 4))
    alone = helios.decode(b)
    helios.decode(a)
    assert np.array_equal(helios.decode(b), alone)
    stream = helios.stream(a)
    next(stream)
    assert np.array_equal(helios.decode(b), alone)
    together = helios.decode(torch.cat([a, b], dim=2))[-33:]
    assert np.abs(together.astype(int) - alone).max() > 3
    done = run_ours(helios, 2)[1]
    assert all(np.array_equal(helios.decode(d.latent), d.frames) for d in reversed(done))


@pytest.mark.parametrize("frames,chunks", [(1, 1), (33, 1), (34, 2), (66, 2)])
def test_f1_whole_chunks_of_33_frames(helios, frames, chunks):
    done = run_ours(helios, 1, frames=frames, steps=(1, 1, 1))[1]
    assert [(d.chunk, d.total, len(d.frames)) for d in done] == [(k, chunks, 33) for k in range(chunks)]


def test_normalise_and_back(helios):
    z = helios.noise(helios.history(WIDTH, HEIGHT), 0)
    raw = helios.denormalise(z)
    vae = helios.config.vae
    assert torch.allclose(raw[:, 3], z[:, 3] * vae.latents_std[3] + vae.latents_mean[3])
    assert torch.allclose(helios.normalise(raw), z, atol=1e-6)


def test_other_histories_run(helios):
    """Without a first frame (D3), and with other sizes."""
    text = helios.text(PROMPT)
    for options in (dict(keep_first_frame=False), dict(sizes=(8, 4, 2))):
        history = helios.history(WIDTH, HEIGHT, **options)
        for _ in range(2):
            *_, step = helios.sample(history, text, seed=0, steps=(1, 1, 1))
            history = history.append(step.latent)
        assert history.chunk == 2 and torch.isfinite(history.window).all()


class Stopped(Exception):
    pass


def test_stop_within_the_block_loop(helios):
    """The exception comes through as it is, no block runs after it, and the model works on."""
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 4:  # the second step's second block
            raise Stopped

    history, text = helios.history(WIDTH, HEIGHT), helios.text(PROMPT)
    steps = helios.sample(history, text, seed=0)
    model = helios.parts.transformer
    usual, model.on_block = model.on_block, stop
    try:
        assert next(steps).index == 0
        with pytest.raises(Stopped):
            next(steps)
        assert len(calls) == 4 and list(steps) == []
    finally:
        model.on_block = usual
    assert not torch.is_inference_mode_enabled()
    assert len(list(helios.sample(history, text, seed=0))) == 12


def test_nan_names_chunk_stage_and_step(fresh, helios):
    bias = fresh.parts.transformer.proj_out.bias
    steps = fresh.sample(fresh.history(WIDTH, HEIGHT), helios.text(PROMPT), seed=0)
    for _ in range(5):
        next(steps)
    bias.data[3] = math.nan
    with pytest.raises(ValueError, match="chunk 1, stage 2, step 6 of 12: .*NaN"):
        list(steps)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_m8_d7_half_precision_weights_keep_a_float32_state(distilled, helios, dtype):
    """M8, M11, D7: what the sampler holds is never rounded to the weights' dtype."""
    model, half = load(distilled[0], weight_dtype=dtype), DTYPES[dtype]
    history, text = model.history(WIDTH, HEIGHT), helios.text(PROMPT)
    steps = list(model.sample(history, text, seed=SEED))
    assert model.parts.transformer.dtype == half
    assert all(s.latent.dtype == s.x0.dtype == torch.float32 for s in steps)
    assert all((s.latent != s.latent.to(half).float()).any() for s in steps)
    assert error(steps[-1].latent, list(helios.sample(history, text, seed=SEED))[-1].latent) < 0.05


def test_d6_every_step_names_its_own_chunk(helios):
    """One count of chunks, whatever loops run inside it."""
    events = list(helios.generate(PROMPT, width=WIDTH, height=HEIGHT, frames=66, seed=SEED, steps=(1, 2, 1)))
    steps = [(e.chunk, e.stage, e.index) for e in events if isinstance(e, SampleStep)]
    one = [(0, 0), (1, 1), (1, 2), (2, 3)]
    first = [(0, stage, i) for i, stage in enumerate((0, 0, 1, 1, 1, 1, 2, 2))]
    assert steps == [*first, *((1, *rest) for rest in one)]
    assert [(e.chunk, e.total) for e in events if not isinstance(e, SampleStep)] == [(0, 2), (1, 2)]


def test_m26_a_size_comes_as_asked_or_not_at_all(helios):
    *_, done = helios.generate(PROMPT, width=WIDTH, height=HEIGHT, frames=33, seed=SEED, steps=(1, 1, 1))
    assert sum(map(len, done.frames)) == 33 and tuple(done.latent.shape[3:]) == (HEIGHT // 8, WIDTH // 8)
    with pytest.raises(ValueError, match="Nearest that work"):
        helios.history(WIDTH + 2, HEIGHT)
