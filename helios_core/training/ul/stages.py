"""Trains Unified Latents (arXiv 2602.17270): stage 1 the codec, stage 2 the base model of its latents.

Unlike the paper, whose sizes are large: the rate's weight warms up, the encoder's head starts four times as large, and
a little of the decoder's loss is spread evenly over all levels (`even`), with the encoder cut off from it, so that the
first step from pure noise is trained too. All three are settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...backends.torch.ul import UL
from ...backends.torch.ul_layers import ResBlock, Temporal, ViTBlock
from ..loop import Recipe, fit, rank
from .loss import bits, diffuse, levels, per_sample, rate, terminal, times, warm_up, weighted

PRIORS = ("diffusion", "detached", "normal")  # normal: KL to N(0, I) in place of a network


@dataclass(frozen=True)
class Terms:
    """What the losses of stage 1 are made of.

    loss_factor: nats that one of the decoder's is worth. bias: the level above which detail is discounted. even:
    weight of the loss spread over all levels. prior: diffusion; detached, which the encoder does not feel but for a
    thousandth of a normal one; or normal. warm_up: whether the rate's weight starts small.
    """

    loss_factor: float = 1.5
    bias: float = 2.0
    even: float = 0.1
    prior: str = "diffusion"
    warm_up: bool = True


SILENT = {ResBlock: ("conv_2", "modulation"), ViTBlock: ("modulation",)}
ANSWERS = ("decoder.conv_out", "prior.linear_out", "base.linear_out")


@torch.no_grad()
def initialise(model: nn.Module, *, head: float = 4.0) -> None:
    """Branches begin silent and answers at zero; the encoder's head begins `head` times as large."""
    for name, module in model.named_modules():
        layers = [getattr(module, part) for part in SILENT.get(type(module), ())]
        for layer in [module] if name in ANSWERS or isinstance(module, Temporal) else layers:
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)
        if name == "encoder.conv_out":
            module.weight.mul_(head)


class StepDraws:
    """The randomness of one step: the same step draws the same, so that a resumed run goes on as it would have."""

    def __init__(self, step: int, use: int = 0):
        number = (step * 1009 + rank()) * 7 + use
        self.rng = np.random.default_rng((number, 5))
        self.torch = torch.Generator().manual_seed(number)

    def like(self, x: Tensor) -> Tensor:
        """Standard normal."""
        return torch.randn(x.shape, generator=self.torch).to(x.device)

    def levels(self, x: Tensor, span) -> Tensor:
        """Levels [b] for x [b ...], evenly spread in time over the span (most signal last)."""
        return levels(times(len(x), self.torch, device=x.device), span)


def hold_first(frames: Tensor, count: int) -> Tensor:
    """Frames [b 3 f h w] as the networks see them: the first one `count` times more."""
    return torch.cat([frames[:, :, :1]] * count + [frames], dim=2)


def rate_terms(model: UL, z: Tensor, draws: StepDraws, prior: str) -> tuple[Tensor, Tensor]:
    """What the clean latents cost in nats [b], and the same as the encoder is to feel it."""
    span = model.config.logsnr_z
    normal = terminal(z, span[1])
    if prior == "normal":
        return normal, normal
    level = draws.levels(z, span)
    noisy, v = diffuse(z.detach() if prior == "detached" else z, draws.like(z), level)
    cost = rate(v, model.prior(noisy, level), level, span) + terminal(z, span[0])
    if prior == "detached":
        return cost.detach(), cost - terminal(z, span[0]) + 1e-3 * normal
    return cost, cost


def decoder_terms(
    decoder, config, x: Tensor, z: Tensor, draws: StepDraws, terms: Terms, *, level_z: Tensor | None = None, pixels=None
) -> tuple[Tensor, Tensor]:
    """The decoder's loss in nats [b], and the even one, for frames x and clean latents z. level_z: of z_0, if not the
    config's noise."""
    level_z = torch.full((len(z),), config.noise, device=z.device) if level_z is None else level_z
    z0 = diffuse(z, draws.like(z), level_z)[0]
    level = draws.levels(x, config.logsnr_x)
    noisy, v = diffuse(x, draws.like(x), level)
    loss = weighted(v, decoder(noisy, z0, level, level_z, pixels), level, config.logsnr_x, bias=terms.bias)
    if not terms.even:
        return loss, torch.zeros_like(loss)
    few = max(1, len(x) // 4)
    level = draws.levels(x[:few], config.logsnr_x)
    noisy, v = diffuse(x[:few], draws.like(x[:few]), level)
    known = None if pixels is None else pixels[:few]
    even = per_sample((v - decoder(noisy, z0[:few].detach(), level, level_z[:few], known)) ** 2)
    return loss, terms.even * even


def stage_one(model: UL, data, terms: Terms, steps: int, batch: int):
    """The loss of a step of stage 1, as `fit` takes it. data: batch(rng, count) -> frames [b 3 f h w]."""
    config, device = model.config, next(model.parameters()).device

    def loss(step: int) -> dict:
        draws = StepDraws(step)
        x = hold_first(data.batch(draws.rng, batch).to(device), config.hidden)
        with mixed(device):
            z = model.encoder(x).float()
            cost, felt = rate_terms(model, z, draws, terms.prior)
            decoding, even = decoder_terms(model.decoder, config, x, z, draws, terms)
        share = warm_up(step, steps) if terms.warm_up else 1.0
        pixels = (x.shape[2] - config.hidden) * x.shape[3] * x.shape[4]
        total = (share * felt + terms.loss_factor * decoding).mean() + even.mean()
        return {
            "loss": total / pixels,
            "bits_per_pixel": bits(cost, pixels),
            "bits_per_latent": bits(cost, z[0].numel()),
            "decoder": decoding.mean() / pixels,
            "z_std": z.std(),
        }

    return loss


def stage_two(model: UL, encoder, data, *, bias: float, batch: int):
    """The loss of a step of stage 2: the base learns the frozen encoder's latents, low noise discounted.

    encoder: function of frames to clean latents, without gradients.
    """
    config, device = model.config, next(model.parameters()).device

    def loss(step: int) -> dict:
        draws = StepDraws(step, use=2)
        with torch.no_grad(), mixed(device):
            z = encoder(hold_first(data.batch(draws.rng, batch).to(device), config.hidden)).float()
        level = draws.levels(z, config.logsnr_z)
        noisy, v = diffuse(z, draws.like(z), level)
        with mixed(device):
            answer = model.base(noisy, level)
        nats = weighted(v, answer, level, config.logsnr_z, bias=bias)
        return {"loss": nats.mean() / z[0].numel(), "v_error": ((answer - v) ** 2).mean()}

    return loss


def mixed(device):
    """bfloat16 on a GPU; float32 on a CPU, where it is no faster at these sizes."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=torch.device(device).type == "cuda")


def train_codec(model: UL, data, terms: Terms, recipe: Recipe, file: Path, *, batch: int) -> UL:
    """Stage 1, from `file` on if it is there; leaves the averaged weights in the model."""
    return fit(model, stage_one(model, data, terms, recipe.steps, batch), recipe, file).train(False)


def train_base(model: UL, encoder, data, recipe: Recipe, file: Path, *, bias: float, batch: int) -> UL:
    """Stage 2, likewise."""
    return fit(model, stage_two(model, encoder, data, bias=bias, batch=batch), recipe, file).train(False)
