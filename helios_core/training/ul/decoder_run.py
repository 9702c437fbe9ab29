"""A diffusion decoder for a checkpoint's latents: clips, training, the table against its VAE, and the file."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch

from ... import load
from ...backends import torch as backend
from ...backends.torch.ul import UL
from ...devices import Host
from ...disk import write
from ...ul import DecodePlan, decode
from ..crops import to_frames
from ..files import save_ul
from ..loop import rank
from . import decoder, presets, report
from .run import join, leave, recipe

EVERY = {  # setting -> plan, and whether the VAE's frames are given
    "1 step": (DecodePlan(), True),
    "4 steps": (DecodePlan(steps=4), True),
    "20 steps": (DecodePlan(steps=20), True),
    "4 steps from the VAE's frames": (DecodePlan(steps=4, start=0.0), True),
    "1 step, latents alone": (DecodePlan(), False),
    "20 steps, latents alone": (DecodePlan(steps=20), False),
}


def run(settings, folder: Path, output: Path, *, device: str = "auto") -> dict[str, dict]:
    """settings: `commands.train_ul_decoder.ULDecoderSettings`. Returns the rows of the table by setting.

    ValueError, before any training, for a checkpoint, data or sizes that do not fit.
    """
    sizes = presets.find(settings.sizes)
    place = join(device)
    try:
        helios = load(settings.model, backend="torch", host=OnDevice(place))
        clips, test = find_clips(settings, folder, helios)
        model = decoder.build(decoder.adapt(sizes, helios, clips)).to(place)
        decoder.train(model, clips, recipe(settings), folder / "decoder.pt", batch=settings.batch)
        first = rank() == 0
    finally:
        leave()
    return finish(model, helios, test, settings, folder, output) if first else {}


class OnDevice(Host):
    """Everything on one device."""

    def __init__(self, place):
        self.where = place

    def device(self, own):
        """The one."""
        return self.where


def find_clips(settings, folder: Path, helios) -> tuple[decoder.DecoderClips, decoder.DecoderClips]:
    """Clips to train on, and others for the table: held-out drawings, or further crops of the same videos."""
    given = {"size": settings.size, "latents": settings.latents}
    if settings.data == decoder.DRAWN:
        clips = decoder.make_clips(folder, helios, settings.data, count=settings.clips, **given)
        found = decoder.run_vae(helios, decoder.held_out(settings.tested, clips.frames.shape[1]))
        return clips, decoder.DecoderClips(**found)
    clips = decoder.make_clips(folder, helios, settings.data, count=settings.clips + settings.tested, **given)
    parts = [(part[: settings.clips], part[settings.clips :]) for part in (clips.frames, clips.seen, clips.latents)]
    return tuple(decoder.DecoderClips(*chosen) for chosen in zip(*parts))


def finish(model: UL, helios, test: decoder.DecoderClips, settings, folder: Path, output: Path) -> dict[str, dict]:
    """The file, the table and the sheet."""
    save_ul(model, output, steps=settings.steps, dtype=torch.float16)
    rows, pictures = compare(model, helios, test)
    write(folder / "decoder.json", json.dumps(rows, indent=1) + "\n")
    write(folder / "decoder.md", table(rows))
    report.save_sheet(pictures, folder / "decoder-sheet.png")
    return rows


def compare(model: UL, helios, clips: decoder.DecoderClips) -> tuple[dict, dict]:
    """Figures per setting on those clips, and frames of the first one."""
    wanted, seen = to_frames(clips.frames.numpy()), to_frames(clips.seen.numpy())
    start = time.perf_counter()
    with torch.inference_mode():
        for z in clips.latents.float():
            helios.decode(z[None].to(helios.parts.vae.device))
    rows = {"VAE": figures(seen, wanted, time.perf_counter() - start)}
    pictures = {"source": wanted, "VAE": seen}
    for name, (plan, given) in EVERY.items():
        start = time.perf_counter()
        frames = decode_all(model, clips.latents, plan, seen if given else None)
        rows[name] = figures(frames, wanted, time.perf_counter() - start)
        pictures[name] = frames
    return rows, pictures


@torch.inference_mode()
def decode_all(model: UL, latents: torch.Tensor, plan: DecodePlan, seen: torch.Tensor | None) -> torch.Tensor:
    """One clip after another, as in use: [n 3 t h w]."""
    made = []
    for number, z in enumerate(latents):
        pixels = None if seen is None else seen[number : number + 1].numpy()
        steps = decode(model, z[None].float().numpy(), plan, backend=backend, seed=number, pixels=pixels)
        made.append(torch.cat([step.frames.cpu() for step in steps if step.frames is not None], dim=2))
    return torch.cat(made)


def figures(frames: torch.Tensor, wanted: torch.Tensor, seconds: float) -> dict[str, float]:
    """PSNR in dB, the mean over clips; sharpness: size of the gradients beside the source's; flicker: error of the
    change from frame to frame; milliseconds per frame."""
    psnr = [report.psnr(a, b) for a, b in zip(frames, wanted)]
    change = (frames.diff(dim=2) - wanted.diff(dim=2)).abs().mean()
    count = frames.shape[0] * frames.shape[2]
    return {
        "psnr": float(np.mean(psnr)),
        "sharpness": float(gradient(frames) / gradient(wanted)),
        "flicker": float(change) * 127.5,
        "ms_per_frame": 1000 * seconds / count,
    }


def gradient(frames: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of neighbours, down and across, of frames [b 3 t h w]."""
    return frames.diff(dim=3).square().mean() + frames.diff(dim=4).square().mean()


def table(rows: dict[str, dict]) -> str:
    """Markdown."""
    lines = [
        "| decoder | PSNR, dB | sharpness (source: 1) | flicker, levels of 255 | ms per frame |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        numbers = f"{row['psnr']:.2f} | {row['sharpness']:.3f} | {row['flicker']:.2f} | {row['ms_per_frame']:.1f}"
        lines.append(f"| {name} | {numbers} |")
    return "\n".join([*lines, ""])
