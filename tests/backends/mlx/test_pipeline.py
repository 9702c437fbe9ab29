"""Videos on MLX: those of torch from the same seed, without torch installed, and what is refused.

M1 to M27 as far as they concern a whole run: M11, M22, M24, M26; the networks' own: test_transformer.py, test_vae.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from helios_video.helios_core import cli, load, pipeline
from helios_video.helios_core.commands import doctor, run, set_threads
from helios_video.helios_core.devices import libraries
from helios_video.helios_core.history import saved
from helios_video.helios_core.steps.denoise import denoise
from safetensors.torch import load_file, save_file
from support.mlx import WITHOUT_TORCH, error, last
from support.reference import HEIGHT, NEGATIVE, PROMPT, WIDTH, build, psnr
from support.starting import CASES, draw

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")
from support.devices import hide  # noqa: E402

FEW = (1, 1, 1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """helios-tiny with a text encoder of the same numbers in float32, on MLX and on torch, computing in float32."""
    folder = shutil.copytree(pipeline.TINY, tmp_path_factory.mktemp("tiny") / "tiny")
    file = folder / "text_encoder" / "model.safetensors"
    save_file({name: x.float() for name, x in load_file(file).items()}, file)
    return [load(folder, backend=name, weight_dtype="fp32") for name in ("mlx", "torch")]


@pytest.fixture(scope="module")
def chunks(tiny):
    """Latents of three chunks from one prompt and seed: MLX's and torch's."""
    out = []
    for model in tiny:
        history, text = model.history(64, 64), model.text(PROMPT)
        for _ in range(3):
            history = history.append(last(model.sample(history, text, seed=3, steps=FEW)).latent)
            out.append(history.window[:, :, -9:])
    return out[:3], out[3:]


def test_three_chunks_of_helios_tiny_are_those_of_torch(chunks):
    """Measured: 3e-6 to 7e-6."""
    for got, want in zip(*chunks, strict=True):
        assert isinstance(got, mx.array) and got.dtype == mx.float32
        assert error(got, want) < 1e-4


def test_its_frames_are_those_of_torch(tiny, chunks):
    """Of the last chunk, which inherits what the others differ in."""
    got, want = (model.decode(done[2]) for model, done in zip(tiny, chunks))
    assert got.dtype == np.uint8 and got.shape == (33, 64, 64, 3)
    assert psnr(got / 255, want / 255) > 45 and np.abs(got.astype(int) - want).max() <= 2


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each variant as a tiny random checkpoint, saved by diffusers."""
    made = {}
    for name in ("base", "mid", "distilled"):
        build(name, made.setdefault(name, tmp_path_factory.mktemp(name)))
    return made


def both(folder):
    return [load(folder, backend=name) for name in ("mlx", "torch")]


@pytest.mark.parametrize("name,steps", [("base", (4,)), ("mid", (3, 2, 2)), ("distilled", None)])
def test_every_variant_is_that_of_torch(folders, name, steps):
    """Guidance, solvers, jumps and doubled steps, over two chunks."""
    chunks = []
    for model in both(folders[name]):
        history, text = model.history(WIDTH, HEIGHT), [model.text(x) for x in (PROMPT, NEGATIVE)]
        for _ in range(2):
            step = last(model.sample(history, text[0], negative=text[1], seed=5, steps=steps))
            history = history.append(step.latent)
        chunks.append((step.latent, step.x0, history.anchor))
    for got, want in zip(*chunks, strict=True):
        assert error(got, want) < 1e-4


@pytest.mark.parametrize("kind", CASES)
def test_starts_are_those_of_torch(folders, kind):
    """From an image and from a video, of another size than asked for; the encoder's draws come from the seed."""
    made = []
    for model in both(folders["distilled"]):
        history = model.history(64, 64, **{kind: draw(CASES[kind])}, seed=2)
        made.append((history.window, history.anchor, last(model.sample(history, model.text(PROMPT), seed=2)).latent))
    for got, want in zip(*made, strict=True):
        assert error(got, want) < 1e-4


def test_going_on_from_latents_of_any_library(folders):
    """What a node hands over may be torch's; a saved run is numpy's."""
    model = load(folders["distilled"], backend="mlx")
    latent = np.random.default_rng(0).normal(size=(1, 16, 9, 8, 8)).astype(np.float32)
    for array in (np.asarray, torch.from_numpy, mx.array):
        window = model.history(64, 64, latent=array(latent)).window
        assert isinstance(window, mx.array) and np.array_equal(np.asarray(window[:, :, -9:]), latent)


def test_a_batch_is_what_its_elements_are_alone(folders):
    model = load(folders["distilled"], backend="mlx")
    text = model.text(PROMPT)
    pair = last(model.sample(model.history(64, 64, batch=2), text, seed=7, steps=FEW)).latent
    for i in range(2):
        alone = last(model.sample(model.history(64, 64), text, seed=7 + i, steps=FEW)).latent
        assert error(pair[i : i + 1], alone) < 1e-5


def test_m11_state_is_float32_whatever_the_weights_are():
    model = load(backend="mlx", weight_dtype="bf16")
    assert model.parts.transformer.dtype == mx.bfloat16
    for step in model.sample(model.history(64, 64), model.text(PROMPT), seed=0, steps=FEW):
        assert step.latent.dtype == step.x0.dtype == mx.float32


def test_m22_one_evaluation_a_step_and_none_in_the_loop(folders, monkeypatch):
    """The whole chunk can be traced, where any look at a value would raise; the pipeline settles once per step."""
    model = load(folders["distilled"], backend="mlx")
    settled, real = [], model.backend.finish
    monkeypatch.setattr(model.backend, "finish", lambda *x: settled.append(len(x)) or real(*x))
    history, text = model.history(64, 64), model.text(PROMPT)
    steps = list(model.sample(history, text, seed=1))
    assert settled == [2] * len(steps) and len(steps) == 12
    net = model.parts.transformer
    context, prompt = net.history_context(history.parts(9)), net.text_context(text)
    plan = model.plan(history)

    def chunk(x):
        steps = denoise(lambda x, t: net.velocity(x, t, prompt, context), x, lambda _, shape: mx.ones(shape), plan)
        return last(steps).latent

    assert mx.compile(chunk)(mx.zeros((1, 16, 9, 2, 2))).shape == (1, 16, 9, 8, 8)


def test_m24_same_bytes_in_a_fresh_process_without_torch(tmp_path):
    """`helios generate --backend mlx` where torch and transformers cannot be imported."""
    line = ["generate", "--backend", "mlx", "--prompt", PROMPT, "--seed", "11", "--steps", "1,1,1", "--frames", "5"]
    line += ["--width", "64", "--height", "64", "--output", "out.mp4", "--save-history", "run.safetensors"]
    command = [sys.executable, "-c", WITHOUT_TORCH, *line]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out.mp4\n" and (tmp_path / "out.mp4").stat().st_size > 500
    assert "MLX has no GPU" in done.stderr or mx.metal.is_available()
    model = load(backend="mlx")
    history = model.history(64, 64)
    want = last(model.sample(history, model.text(PROMPT), seed=11, steps=FEW)).latent
    kept = saved.read(tmp_path / "run.safetensors", model.config, model.backend.array).history
    assert np.array_equal(np.asarray(kept.window[:, :, -9:]), np.asarray(want))


def test_m26_a_size_is_refused_not_rounded():
    with pytest.raises(ValueError, match="multiple"):
        load(backend="mlx").history(72, 64)


def test_a_model_may_be_used_in_another_thread(folders):
    """ComfyUI's nodes run beside its server; MLX's lazy arrays belong to the thread that made them."""
    model, out = load(folders["distilled"], backend="mlx"), []
    text, net = model.text(PROMPT), model.parts.transformer

    def work():
        out.append(last(model.sample(model.history(64, 64), text, seed=1, steps=FEW)).latent)

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert model.parts.transformer is net and np.array_equal(np.asarray(out[0]), np.asarray(out[1]))


@pytest.mark.parametrize("options", [dict(vae_tiling="on"), dict(vae_dtype="bf16"), dict(offload="sequential")])
def test_ways_to_decode(folders, options):
    """In tiles (here one), in bfloat16, and with one component in memory at a time."""
    latent = np.random.default_rng(0).normal(size=(1, 16, 2, 8, 8)).astype(np.float32)
    plain, other = (load(folders["distilled"], backend="mlx", **more) for more in ({}, options))
    want, got = (model.decode(model.backend.array(latent)) for model in (plain, other))
    assert got.shape == want.shape == (5, 64, 64, 3) and got.std() > 10
    assert psnr(got / 255, want / 255 + 1e-9) > 40


def test_nan_is_an_error_that_names_the_step(folders):
    model = load(folders["distilled"], backend="mlx")
    history, start = model.history(64, 64), torch.zeros(1, 16, 9, 2, 2)
    start[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="chunk 1, stage 1, step 1 of 3"):
        list(model.sample(history, model.text(PROMPT), seed=1, start=start, steps=FEW, boost_first_chunk=False))


def test_workflows_need_torch(monkeypatch, capsys):
    """Nodes hand on torch's tensors; said before anything runs."""
    hide(monkeypatch, "torch")
    monkeypatch.setattr(run, "installed", libraries.installed)
    assert cli.main(["run", "any.json"]) == 2
    assert "nodes hand torch tensors on, whatever computes; install it as pytorch.org says" in capsys.readouterr().err


def test_what_mlx_has_not_is_refused():
    with pytest.raises(ValueError, match="--threads sets torch's CPU threads"):
        set_threads(2, "mlx")


def test_unified_memory_is_counted_once(monkeypatch):
    """On a Mac's GPU the weights are in the host's memory, and there is nowhere to stream blocks from."""
    model = load(backend="mlx")
    monkeypatch.setattr(model.backend, "kind", lambda device: "metal")
    monkeypatch.setattr(model.backend, "free_memory", lambda device: 0)
    assert model.parts.offload_mode == "sequential"
    assert "device" not in "".join(model.parts.needs())


def test_doctor_tells_what_mlx_computes_on(capsys):
    assert doctor.print_mlx()
    said = capsys.readouterr().out
    assert f"mlx {mx.__version__}" in said and ("Apple GPU" in said or "cpu" in said)


@pytest.mark.parametrize("quantize", [[], ["--quantize", "int8"]])
def test_converted_files_load(tmp_path, quantize):
    """All parts in one file, in ComfyUI's layout, and quantised: it stays so (test_quant.py)."""
    out = tmp_path / "tiny.safetensors"
    assert cli.main(["convert", str(pipeline.TINY), str(out), *quantize]) == 0
    model, want = load(out, backend="mlx"), load(backend="mlx")
    got, want = (m.parts.transformer.blocks[0].attn1.to_qkv.weight for m in (model, want))
    assert got.dtype == mx.bfloat16
    got, want = (np.asarray(x.astype(mx.float32)) for x in (got, want))
    assert error(got, want) < 0.01 if quantize else np.array_equal(got, want)
    assert model.text(PROMPT).shape == (1, 512, model.config.transformer.text_dim)
