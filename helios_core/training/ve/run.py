"""Variance Expansion for a Wan-layout VAE: from nothing, or from one that is there; measured before and after.

A reconstruction's posterior has collapsed (sigma^2 = 1e-8, say), and an optimiser's step is its learning rate, whatever
the gradient: log sigma^2 would take thousands of steps up, or, under the bare term's huge gradient, drag the encoder
along. So it starts where it is expected to end (`to_balance`), and delta bounds the pull where it does not. Gradients
are clipped by their norm, together, for the few dimensions that are still far down.

With the decoder fixed, latents keep their meaning: a video model made for the old encoder goes with the new one. Once
the decoder learns too, scale and content of the latents move, so the file then records new means and spreads, and a
video model must be trained on it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import distributed, nn

from ...backends import torch as backend
from ...backends.torch.vae import WanVAE
from ...checkpoint import DOCUMENTS, open_part
from ...config import ModelConfig, VAEConfig
from ...disk import replacing, write
from ...measure import codec_of, probe, probe_report
from .. import files
from ..crops import Crops
from ..data import open_data
from ..loop import Recipe, fit, join, rank
from ..tiny import initialise
from .terms import KL, LogVariance, VarianceExpansion, equilibrium, reconstruction

EVALUATION = 10**6  # the step whose crops the figures are of; no training gets there
SEEN = 8  # crops that are probed
STATISTICS = 64  # crops whose latents' means and spreads are recorded
COLLAPSED = 1e-2  # a posterior's sigma
RATE, TUNING_RATE = 1e-3, 2.5e-5  # the paper's for a tokenizer is the second


def make_term(settings):
    """The term beside reconstruction. ValueError for an unknown one."""
    size = {"weight": settings.weight, "size_weight": settings.size_weight}
    terms = {
        "ve": lambda: VarianceExpansion(**size, delta=settings.delta),
        "scale-free": lambda: VarianceExpansion(**size, delta=settings.delta, free_of_scale=True),
        "kl": lambda: KL(settings.weight),
        "log-variance": lambda: LogVariance(**size),
    }
    if settings.term not in terms:
        raise ValueError(f"--term {settings.term}: wanted one of {', '.join(terms)}")
    if settings.weight <= 0:
        raise ValueError("--weight must be above 0: without the term reconstruction takes all noise from the latents")
    return terms[settings.term]()


def check_sizes(settings, vae: WanVAE) -> None:
    """ValueError unless crops fill whole latents and steps are steps."""
    time, space = vae.factor
    if settings.size < space or settings.size % space:
        raise ValueError(f"--size {settings.size}: wanted a multiple of {space} pixels")
    if settings.frames < 1 or (settings.frames - 1) % time:
        raise ValueError(f"--frames {settings.frames}: wanted 1, for pictures, or 1 + a multiple of {time}, for videos")
    if min(settings.batch, settings.steps, settings.base_dim) < 1:
        raise ValueError("--batch, --steps and --base-dim must be at least 1")
    if settings.start not in ("balance", "own"):
        raise ValueError(f"--start {settings.start}: wanted balance or own")
    if settings.latents not in ("auto", "keep", "measure"):
        raise ValueError(f"--latents {settings.latents}: wanted auto, keep or measure")


def open_vae(path: Path | None, settings) -> WanVAE:
    """The VAE of a file or folder, or a new one of `base_dim`."""
    if path is None:
        torch.manual_seed(settings.seed)
        vae = WanVAE(VAEConfig(base_dim=settings.base_dim, num_res_blocks=1))
        initialise(vae)
        return vae
    source = open_part(path, "vae")
    config = ModelConfig(vae=VAEConfig.from_dict(source.config))
    return backend.load_vae(source, config, device=torch.device("cpu"))


def choose_parts(vae: WanVAE, *, decoder: bool, images: bool) -> None:
    """What learns: the encoder, and with `decoder` also that. Still pictures never pass the layers along time."""
    vae.requires_grad_(True)
    if not decoder:
        nn.ModuleList([vae.post_quant_conv, vae.decoder]).requires_grad_(False)
    if images:
        for name, module in vae.named_modules():
            if name.endswith("time_conv"):
                module.requires_grad_(False)


def objective(vae: WanVAE, crops: Crops, term, settings):
    """The loss of a step, as `fit` takes it, per pixel and colour: a constant factor, which moves no balance.

    Logged beside it: mse of the pixels, what the term adds, and the mean log sigma^2.
    """

    def loss(step: int) -> dict:
        rng = np.random.default_rng((settings.seed, step, rank()))
        video = crops.batch(rng, settings.batch).to(vae.device)
        mean, logvar = vae.encode(video)
        eps = torch.from_numpy(rng.standard_normal(tuple(mean.shape), dtype=np.float32)).to(mean)
        z = mean + (0.5 * logvar).exp() * eps
        rebuilt = reconstruction(vae.decode(z, clamp=False), video)
        added = term(mean, logvar, z)
        size = video[0].numel()
        values = {"loss": (rebuilt + added) / size, "mse": rebuilt / size, "term": added / size}
        return {**values, "log_variance": logvar.mean()}

    return loss


def train(vae: WanVAE, crops: Crops, settings, folder: Path, *, tuning: bool) -> WanVAE:
    """Trains in place; goes on from folder/ve.pt. tuning: the VAE is an existing one."""
    choose_parts(vae, decoder=not tuning or bool(settings.decoder), images=settings.frames == 1)
    recipe = Recipe(
        steps=settings.steps, lr=settings.lr or (TUNING_RATE if tuning else RATE), decay=settings.decay,
        warmup=min(100, settings.steps // 10 + 1), weight_decay=0.0, ema=settings.ema, clip=settings.clip,
        save_every=settings.save_every, log_every=settings.log_every,
    )  # fmt: skip
    trained = fit(vae, objective(vae, crops, make_term(settings), settings), recipe, folder / "ve.pt")
    return trained.requires_grad_(False).train(False)


def look(vae: WanVAE, crops: Crops, settings) -> probe.Findings:
    """The probe on crops that no step of the training drew."""
    rng = np.random.default_rng((settings.seed, EVALUATION))
    clips = [crops.draw(rng) for _ in range(SEEN)]
    settings = probe.ProbeSettings(weight=settings.weight, sensed_pieces=SEEN)
    *_, last = probe.measure(codec_of(vae, backend), clips, settings)
    return last.findings


def check_pull(found: probe.Findings, settings) -> None:
    """ValueError for a collapsed posterior that is to rise by the bare term, whose gradient is weight / sigma^2: all
    other gradients drown in it, and within a few steps the encoder has forgotten its pictures."""
    expands = settings.term in ("ve", "scale-free") and settings.start == "own" and not settings.delta
    if expands and (smallest := float(found.sigma.min())) < COLLAPSED:
        raise ValueError(
            f"the posterior's sigma is down to {smallest:.2g}; with --delta 0 the term would tear the encoder apart. "
            "Take --start balance, or a --delta such as 1e-4, from where it rises slowly"
        )


@torch.no_grad()
def to_balance(vae: WanVAE, crops: Crops, found: probe.Findings, term) -> None:
    """Moves each channel's log variance to where its balance is expected: an optimiser takes a collapsed one there by
    its learning rate per step. The encoder's own differences between places stay."""
    rng = np.random.default_rng((EVALUATION, 1))
    video = crops.batch(rng, SEEN).to(vae.device)
    now = vae.encode(video)[1].transpose(0, 1).flatten(1).mean(1)
    sigma = equilibrium(np.maximum(found.sensitivity, 1e-12), term, np.maximum(found.std, 1e-6))
    wanted = torch.from_numpy(2 * np.log(np.maximum(sigma, 1e-4))).to(now)
    vae.quant_conv.bias[vae.config.z_dim :] += wanted - now


@torch.inference_mode()
def moments(vae: WanVAE, crops: Crops, settings) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and spread of each channel of the raw latents."""
    rng = np.random.default_rng((settings.seed, EVALUATION, 2))
    found = [vae.encode(crops.batch(rng, 1).to(vae.device))[0].cpu() for _ in range(STATISTICS)]
    flat = rearrange(torch.stack(found), "n b c t h w -> c (n b t h w)")
    return tuple(flat.mean(1).tolist()), tuple(flat.std(1).tolist())


def save(vae: WanVAE, file: Path, *, stats=None) -> Path:
    """One safetensors file for HeliosLoader's vae, configuration inside; `file` appears whole or not at all."""
    config = vae.config if stats is None else replace(vae.config, latents_mean=stats[0], latents_std=stats[1])
    document = json.dumps({"_class_name": "AutoencoderKLWan", **asdict(config)})
    tensors = {name: value.float() for name, value in vae.state_dict().items()}
    return files.save(tensors, file, {DOCUMENTS: json.dumps({"vae/config.json": document})})


def figures(found: probe.Findings) -> dict[str, float]:
    """A few numbers of the probe."""
    names = {f"psnr_at_{100 * level:.0f}_percent": value for level, value in zip(probe.CURVE, found.psnr)}
    sigma = {"sigma": float(np.sqrt((found.sigma**2).mean())), "snr_db": float(found.snr.mean())}
    return {**{k: float(v) for k, v in names.items()}, **sigma, "spread": float(found.std.mean())}


def run(settings, vae: Path | None, data: Path, folder: Path, output: Path, *, device: str) -> dict:
    """settings: `commands.train_ve.VESettings`. Reports of before and after in `folder`; returns their figures, in the
    first process of several.

    ValueError, before any training, for data or sizes that do not fit.
    """
    term, network = make_term(settings), open_vae(vae, settings)
    check_sizes(settings, network)
    crops = open_data(data, size=settings.size, frames=settings.frames)
    place = join(device)
    try:
        network = network.to(place)
        before = look(network, crops, settings)
        if vae is not None:
            check_pull(before, settings)
            if settings.start == "balance":
                to_balance(network, crops, before, term)
        train(network, crops, settings, folder, tuning=vae is not None)
        after = look(network, crops, settings)
        found = {} if rank() else {"before": figures(before), "after": figures(after)}
        if found:
            kept = settings.latents == "keep" or (settings.latents == "auto" and vae and not settings.decoder)
            save(network, output, stats=None if kept else moments(network, crops, settings))
            write(folder / "figures.json", json.dumps(found, indent=1) + "\n")
            for name, findings in (("before", before), ("after", after)):
                write(folder / f"{name}.txt", probe_report.table(findings, name) + "\n")
                with replacing(folder / f"{name}.png") as part:
                    probe_report.picture(findings).save(part, "PNG")
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    return found
