"""Videos on MLX: those of torch from the same seed, without torch installed, through the nodes, and what is refused.

M1 to M27 as far as they concern a whole run: M11, M22, M24, M26; the networks' own: test_mlx.py, test_mlx_vae.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from helios_video import NODE_CLASS_MAPPINGS as NODES
from helios_video.helios_core import cli, load, pipeline
from helios_video.helios_core.commands import doctor, run, set_threads
from helios_video.helios_core.devices import libraries
from helios_video.helios_core.history import saved
from helios_video.helios_core.steps.denoise import denoise
from safetensors.torch import load_file, save_file
from support.mlx import WITHOUT_TORCH
from support.reference import HEIGHT, NEGATIVE, PROMPT, WIDTH, build, psnr
from support.starting import CASES, draw

mx = pytest.importorskip("mlx.core", reason="mlx is not installed")

FEW = (1, 1, 1)


def error(got, want):
    got, want = np.asarray(got), np.asarray(want)
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def last(events):
    return list(events)[-1]


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


def node(name, **inputs):
    kind = NODES[name]
    return getattr(kind(), kind.FUNCTION)(**inputs)


@pytest.fixture(scope="module")
def graph(folders):
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
    want = last(model.sample(model.history(64, 64), model.text(PROMPT), seed=4, steps=FEW)).latent
    assert error(z, model.denormalise(want)) < 1e-6
    assert isinstance(graph["after"].history.window, mx.array)


def test_a_graph_goes_on_from_its_own_latents(graph):
    model = graph["model"]
    (history,) = node("HistoryMemory", model=model, width=0, height=0, latent=graph["latent"])
    assert error(history.history.window, graph["after"].history.window) < 1e-5 and history.history.chunk == 1


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
    assert np.array_equal(np.concatenate(list(vae.frames(z))), (frames[0] * 255).round().byte().numpy())
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


def hide(monkeypatch, *names):
    real = libraries.util.find_spec
    monkeypatch.setattr(libraries.util, "find_spec", lambda name: None if name in names else real(name))


@pytest.mark.parametrize("apple,hidden,chosen", [(True, (), "mlx"), (True, ("mlx",), "torch"), (False, (), "torch")])
def test_auto_is_mlx_on_apple_silicon_where_it_is_installed(monkeypatch, apple, hidden, chosen):
    monkeypatch.setattr(libraries, "_apple_silicon", lambda: apple)
    hide(monkeypatch, *hidden)
    assert libraries.choose("auto") == chosen
    assert libraries.choose("torch") == "torch"


@pytest.mark.parametrize(
    "backend,hidden,said",
    [
        ("mlx", ("mlx",), r"mlx is not installed; .*helios-video\[mlx\]', or choose backend torch"),
        ("torch", ("torch",), "torch is not installed; install it as pytorch.org says .*, or choose backend mlx"),
        ("auto", ("torch", "mlx"), r"neither torch nor mlx is installed.*pytorch.org.*helios-video\[mlx\]"),
        ("cuda", (), "backend 'cuda': wanted one of auto, torch, mlx"),
    ],
)
def test_what_is_missing_is_named(monkeypatch, backend, hidden, said):
    hide(monkeypatch, *hidden)
    with pytest.raises(ValueError, match=said):
        load(backend=backend)


@pytest.mark.parametrize("kind,warned", [("cpu", True), ("metal", False), ("cuda", False)])
def test_mlx_without_metal_says_what_to_choose(monkeypatch, caplog, kind, warned):
    """It runs all the same: on Linux it is there for checking."""
    monkeypatch.setattr(libraries.open_backend("mlx"), "kind", lambda device: kind)
    caplog.clear()
    load(backend="mlx").backend  # noqa: B018
    assert ("MLX has no GPU here and computes on the CPU, where backend torch is much faster" in caplog.text) is warned


def test_workflows_need_torch(monkeypatch, capsys):
    """Nodes hand on torch's tensors; said before anything runs."""
    hide(monkeypatch, "torch")
    monkeypatch.setattr(run, "installed", libraries.installed)
    assert cli.main(["run", "any.json"]) == 2
    assert "nodes hand torch tensors on, whatever computes; install it as pytorch.org says" in capsys.readouterr().err


def test_a_broken_mlx_is_told_from_a_missing_file(monkeypatch):
    """On Linux the package mlx alone has no library to load."""

    def broken(name, package):
        raise ImportError("libmlx.so: cannot open shared object file", name="mlx.core")

    monkeypatch.setattr(libraries, "import_module", broken)
    with pytest.raises(ValueError, match=r"mlx does not load \(libmlx.so.*helios-video\[mlx\]"):
        load(backend="mlx")


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
    """All parts in one file, in ComfyUI's layout, and quantised: it stays so (test_mlx_quant.py)."""
    out = tmp_path / "tiny.safetensors"
    assert cli.main(["convert", str(pipeline.TINY), str(out), *quantize]) == 0
    model, want = load(out, backend="mlx"), load(backend="mlx")
    got, want = (m.transformer.blocks[0].attn1.to_qkv.weight for m in (model, want))
    assert got.dtype == mx.bfloat16
    got, want = (np.asarray(x.astype(mx.float32)) for x in (got, want))
    assert error(got, want) < 0.01 if quantize else np.array_equal(got, want)
    assert model.text(PROMPT).shape == (1, 512, model.config.transformer.text_dim)
