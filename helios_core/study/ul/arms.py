"""One arm of the Unified Latents study: a small codec trained on photographs, measured on others, kept on disk."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

from ...backends.torch.ul import UL, ViT
from ...disk import write
from ...training import Photos, Recipe, fit
from ...training.ul import bits, diffuse, presets, rate, report, stages
from ...ul import add_noise

SIZE = 16  # pixels to a side of a crop
BATCH, TESTED = 32, 128
BIAS = 2.0
BASE_BIAS = 0.0


@dataclass(frozen=True)
class Arm:
    """What is trained. refit: times as many steps for a fresh prior of the finished latents, 0 for none; base: whether
    stage 2 is trained too."""

    factor: float = 3.0
    noise: float = 5.0
    prior: str = "diffusion"
    seed: int = 0
    refit: int = 0
    base: bool = False

    @property
    def name(self) -> str:
        """What tells it from the study's other arms."""
        return f"factor{self.factor:g}-noise{self.noise:g}-{self.prior}-seed{self.seed}"


def recipe(steps: int) -> Recipe:
    """How every network of the study is trained."""
    return Recipe(steps=steps, lr=1.5e-3, warmup=20, weight_decay=0.0, ema=0.99, save_every=250, log_every=50)


class Seeded:
    """The same crops, in another order for every seed."""

    def __init__(self, photos: Photos, seed: int):
        self.photos, self.seed = photos, seed

    def batch(self, rng: np.random.Generator, count: int) -> torch.Tensor:
        """float32 [b 3 1 h w] in [-1, 1]."""
        return self.photos.batch(np.random.default_rng((int(rng.integers(2**31)), self.seed)), count)


def run(arm: Arm, files: list[Path], folder: Path, steps: int) -> dict[str, float]:
    """The figures of an arm; read back if it was measured with as many steps on the same files."""
    made_of = {"arm": asdict(arm), "steps": steps, "files": {file.name: crc32(file.read_bytes()) for file in files}}
    place = folder / f"{arm.name}-{steps}-{crc32(json.dumps(made_of).encode()):08x}"
    result = place / "figures.json"
    if result.is_file():
        return json.loads(result.read_text(encoding="utf-8"))["figures"]
    figures = measure(arm, train(arm, files, place, steps), files, place, steps)
    write(result, json.dumps({"made_of": made_of, "figures": figures}, indent=1) + "\n")
    return figures


def train(arm: Arm, files: list[Path], place: Path, steps: int) -> UL:
    """The codec of an arm."""
    torch.manual_seed(arm.seed)
    config = replace(presets.find("tiny"), logsnr_z=(-10.0, arm.noise))
    model = UL(config, ("encoder", "decoder") if arm.prior == "normal" else ("encoder", "prior", "decoder"))
    stages.initialise(model)
    terms = stages.Terms(arm.factor, BIAS, prior=arm.prior)
    data = Seeded(Photos(files, SIZE), arm.seed)
    return stages.train_codec(model, data, terms, recipe(steps), place / "codec.pt", batch=BATCH)


def measure(arm: Arm, model: UL, files: list[Path], place: Path, steps: int) -> dict[str, float]:
    """The codec's figures on unseen crops, with those of a fresh prior and of samples where the arm wants them."""
    frames = Photos(files, SIZE, test=True).batch(np.random.default_rng(0), TESTED)
    figures = report.measure(model, frames, prior=arm.prior != "normal")
    if arm.refit:
        prior = refit(model, files, place, arm.refit * steps, arm.seed)
        nats = report.latent_nats(prior, report.encode(model, frames), model.config)
        figures["bits_per_pixel_refitted"] = float(bits(nats, SIZE**2))
    if arm.base:
        figures |= sample(model, files, frames, place, steps, arm.seed)
    return figures


def refit(model: UL, files: list[Path], place: Path, steps: int, seed: int) -> ViT:
    """A fresh prior of the frozen latents: what it saves is what the first bound was too large by."""
    torch.manual_seed(seed + 1)
    fresh = UL(model.config, ("prior",))
    stages.initialise(fresh)
    data, span = Seeded(Photos(files, SIZE), seed + 1), model.config.logsnr_z

    def loss(step: int) -> dict:
        draws = stages.StepDraws(step, use=4)
        z = report.encode(model, data.batch(draws.rng, BATCH))
        level = draws.levels(z, span)
        noisy, v = diffuse(z, draws.like(z), level)
        return {"loss": rate(v, fresh.prior(noisy, level), level, span).mean() / SIZE**2}

    return fit(fresh, loss, recipe(steps), place / "refit.pt").train(False).prior


def sample(model: UL, files: list[Path], frames: torch.Tensor, place: Path, steps: int, seed: int) -> dict[str, float]:
    """Stage 2, and its samples decoded three ways: z_0 as sampled, the last clean estimate, that with noise added."""
    torch.manual_seed(seed + 2)
    base = UL(model.config, ("base",))
    stages.initialise(base)
    data = Seeded(Photos(files, SIZE), seed + 2)
    stages.train_base(base, model.encoder, data, recipe(steps), place / "base.pt", bias=BASE_BIAS, batch=BATCH)
    shape = tuple(report.encode(model, frames).shape)
    z0, clean = (report.draw_latents(base, shape, clean=only) for only in (False, True))
    again = add_noise(clean, stages.StepDraws(0, use=5).like(clean), model.config.noise)
    ways = {"z0": z0, "clean": clean, "renoised": again}
    plan = report.MANY
    shown = {name: report.show(model, z, plan, noisy=True) for name, z in ways.items()}
    rows = {"photographs": frames, **shown}
    report.save_sheet(rows, place / "samples.png", 12)
    return {f"distance_{name}": sliced_distance(made, frames) for name, made in shown.items()}


def sliced_distance(a: torch.Tensor, b: torch.Tensor, *, lines: int = 256, side: int = 4) -> float:
    """Sliced Wasserstein distance of their patches of `side` pixels, along random directions. frames [b 3 t h w]."""
    rng = torch.Generator().manual_seed(0)
    way = torch.randn(3 * side * side, lines, generator=rng)
    way = way / way.norm(dim=0)
    a, b = ((patches(x, side) @ way).sort(dim=0).values for x in (a, b))
    return math.sqrt(float(((a - b) ** 2).mean()))


def patches(frames: torch.Tensor, side: int) -> torch.Tensor:
    """[n, 3 side side]."""
    parts = frames[:, :, 0].unfold(2, side, side).unfold(3, side, side)
    return parts.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(0, 2)
