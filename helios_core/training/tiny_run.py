"""helios-tiny from nothing to its folder: each part goes on from its checkpoint, or is passed over when finished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .. import load
from ..study import bench
from . import tiny, tiny_distil, tiny_files, tiny_vae
from .loop import find_device

SHEET_PROMPTS, SHEET_CHUNKS = 6, 4


def run(settings, folder: Path, output: Path, *, device: str = "auto", compiled: bool = False) -> None:
    """settings: `commands.train.Settings`. In `folder` also the teacher's checkpoint, and a sample sheet of each."""
    place = find_device(device)
    tokenizer = tiny_files.build_tokenizer(tiny.TEXT["vocab_size"])
    vae = tiny_vae.train(folder, steps=settings.vae_steps, device=place)
    stats = tiny_vae.measure_latents(vae)
    clips = tiny.load_clips(folder / "clips", vae, tokenizer, settings.shards, stats)
    recipe = replace(tiny.RECIPE, steps=settings.steps, decay=settings.decay)
    model = tiny.train(clips, folder, recipe, device=place, compiled=compiled)
    vae = tiny_vae.polish(vae, folder, steps=settings.polish_steps, device=place)
    parts = (vae, tokenizer, stats)
    draw_samples(tiny.write_checkpoint(folder / "teacher", model, *parts, tiny.MANY_STEPS), folder / "teacher-samples")
    lessons = tiny_distil.make_lessons(model.to(place), clips, folder / "lessons", settings.lesson_rounds)
    recipe = replace(tiny_distil.RECIPE, steps=settings.distil_steps)
    model = tiny_distil.distil(model, lessons, folder, recipe, device=place, compiled=compiled)
    draw_samples(tiny.write_checkpoint(output, model, *parts, tiny_distil.FEW_STEPS), folder / "samples")


def draw_samples(checkpoint: Path, folder: Path) -> None:
    """The bench's sheet and figures of a few videos of prompts that training never showed."""
    helios = load(checkpoint)
    videos, fps = bench.run(helios, bench.held_out_scenes(SHEET_PROMPTS), [0], SHEET_CHUNKS)
    bench.write(folder, {"default": (videos, bench.summarise(videos, fps))})
