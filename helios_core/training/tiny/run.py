"""helios-tiny from nothing to its folder: each part goes on from its checkpoint, or is passed over when finished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ... import load
from ...drawn import bench
from ..loop import find_device
from . import distil, files, teacher
from .vae import measure_latents, polish, train

SHEET_PROMPTS, SHEET_CHUNKS = 6, 4


def run(settings, folder: Path, output: Path, *, device: str = "auto", compiled: bool = False) -> None:
    """The checkpoint in `output`; in `folder` also the teacher's, and a sample sheet of each.

    settings: `commands.train.TinySettings`. compiled: blocks through torch.compile. ValueError for an unknown device.
    """
    place = find_device(device)
    tokenizer = files.build_tokenizer(teacher.TEXT["vocab_size"])
    vae = train(folder, steps=settings.vae_steps, device=place)
    stats = measure_latents(vae)
    clips = teacher.load_clips(folder / "clips", vae, tokenizer, settings.shards, stats)
    recipe = replace(teacher.RECIPE, steps=settings.steps, decay=settings.decay)
    model = teacher.train(clips, folder, recipe, device=place, compiled=compiled)
    vae = polish(vae, folder, steps=settings.polish_steps, device=place)
    parts = (vae, tokenizer, stats)
    draw_samples(
        teacher.write_checkpoint(folder / "teacher", model, *parts, teacher.MANY_STEPS), folder / "teacher-samples"
    )
    lessons = distil.make_lessons(model.to(place), clips, folder / "lessons", settings.lesson_rounds)
    recipe = replace(distil.RECIPE, steps=settings.distil_steps)
    model = distil.distil(model, lessons, folder, recipe, device=place, compiled=compiled)
    draw_samples(teacher.write_checkpoint(output, model, *parts, distil.FEW_STEPS), folder / "samples")


def draw_samples(checkpoint: Path, folder: Path) -> None:
    """The bench's sheet and figures of a few videos of prompts that training never showed."""
    helios = load(checkpoint)
    videos, fps = bench.run(helios, bench.held_out_scenes(SHEET_PROMPTS), [0], SHEET_CHUNKS)
    bench.write(folder, {"default": (videos, bench.summarise(videos, fps))})
