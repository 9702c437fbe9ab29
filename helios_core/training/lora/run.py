"""A training from a folder to a file: encoded, the flow objective, few steps where the checkpoint takes few; written.

Each part goes on from what lies in the folder. A checkpoint of few steps is taught in two parts; see lessons.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path

import torch
from torch import nn

from ...checkpoint import folders
from ...disk import Store
from ...measure import figures
from ...pipeline import Helios
from ...steps import Plan
from ..captioned import (
    LIMIT,
    CheckedFile,
    ClipEncoder,
    ClipSet,
    EncodedClip,
    check_files,
    encode_captions,
    encode_clips,
    find_captioned,
)
from ..loop import Recipe, fit, rank
from .adapters import find_layers
from .flow import FlowObjective
from .learners import PairLearner, WholeLearner, facts, holding
from .lessons import FewStepObjective, FirstMaker, KeptLessons, KeptMaker, captions_to_keep, few_steps
from .samples import SampleSheet

SMALL = 100_000_000  # numbers of a transformer: below, whole batches and all stages fit a step
VIDEOS = 24  # of a round of lessons, at most
MUON = 4  # times AdamW's learning rate
FIRST_STEPS, LESSONS = 300, 10  # of the first part, and rounds of its lessons, at most: short trainings have fewer
KEPT_PROMPTS = 96  # of helios-tiny
FIRST_RATE = 2e-3  # learning rate of the first part
NEW = 0.6  # share of the first part's samples that are the folder's, where prompts are kept
PROMPTS = 4  # of a sample sheet
CHOICES = {"stages": ("auto", "all", "one"), "precision": ("bf16", "fp32")}
CHOICES |= {"optimiser": ("auto", "adamw", "muon")}
CHOICES |= {"checkpointing": ("auto", "on", "off"), "few_steps": ("auto", "on", "off")}


class Watch:
    """Hears how a training goes; what it raises ends it, its state kept. This one does nothing."""

    def part(self, name: str, total: int) -> None:
        """A part begins, of so many steps: encode, flow, few_steps."""

    def step(self, done: int, total: int) -> None:
        """A step of it is done."""

    def sample(self, file: Path) -> None:
        """A picture of samples was drawn."""


def is_small(helios: Helios) -> bool:
    """Whether a checkpoint's transformer is."""
    return sum(map(prod, helios.backend.shapes(helios.config.transformer).values())) < SMALL


def settle(settings, helios: Helios):
    """The settings with what was left open. ValueError for what cannot be, and where flow alone would spoil a large
    checkpoint of few steps."""
    for name, known in CHOICES.items():
        if getattr(settings, name) not in known:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(settings, name)}: wanted {', '.join(known)}")
    small, distilled = is_small(helios), helios.config.variant == "distilled"
    if distilled and not small and settings.few_steps == "auto":
        raise ValueError(
            "this checkpoint takes few steps, which flow alone spoils. Train on Base or Mid: the file serves Distilled "
            "too; or say --few-steps on (slow: it makes lessons of many steps) or off"
        )
    own, optimiser, steps = helios.config.defaults, settings.optimiser, settings.steps or (600 if small else 1000)
    if optimiser == "auto":
        optimiser = "muon" if small else "adamw"
    return replace(
        settings,
        alpha=settings.alpha or float(settings.rank),
        steps=steps,
        first_steps=settings.first_steps or max(1, min(FIRST_STEPS, steps // 2)),
        lessons=settings.lessons or max(1, min(LESSONS, steps // 60)),
        optimiser=optimiser,
        lr=settings.lr or (2e-3 if small else 1e-4) * (MUON if optimiser == "muon" else 1),
        batch=settings.batch or (16 if small else 1),
        stages=settings.stages if settings.stages != "auto" else "all" if small else "one",
        checkpointing=settings.checkpointing if settings.checkpointing != "auto" else "off" if small else "on",
        pixels=settings.pixels or own.width * own.height,
        few_steps=settings.few_steps if settings.few_steps != "auto" else "on" if distilled else "off",
    )


def blocks_of(text: str, layers: int) -> frozenset[int] | None:
    """ "0-9,20" as numbers; None for all. ValueError for what is none, and for blocks that the model lacks."""
    found: set[int] = set()
    for part in filter(None, re.split(r"[,\s]+", text)):
        span = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if span is None or not int(span[1]) <= int(span[2] or span[1]) < layers:
            raise ValueError(f"--blocks {part}: wanted numbers or ranges from 0 to {layers - 1}, such as 0-9,20")
        found |= set(range(int(span[1]), int(span[2] or span[1]) + 1))
    return frozenset(found) or None


def find_files(helios: Helios, data: Path, settings) -> list[CheckedFile]:
    """What of the folder is trained on. ValueError for all that can be wrong before anything is encoded."""
    if helios.parts.library != "torch":
        raise ValueError(f"training runs on torch; this model is on {helios.parts.library}: choose backend torch")
    files = check_files(find_captioned(data), helios.config.frames_per_chunk)
    encoder = ClipEncoder(helios, settings.pixels, settings.chunks)
    for one in files:
        encoder.size(one)
    return files


@dataclass
class LoraTraining:
    """One training. settings: settled; files: as `find_files` gave them. folder: what it goes on from."""

    helios: Helios
    settings: object
    files: list[CheckedFile]
    folder: Path
    watch: Watch
    full: bool = False

    def run(self, output: Path) -> None:
        """Trains what is not trained yet, and writes the file, or with `full` the folder."""
        clips = self.clips
        learnt = self.teach_few_steps() if self.settings.few_steps == "on" else self.teach_flow()
        if rank() == 0:
            self.learner.save(learnt, output, facts(self.settings, self.helios, len(clips.clips)))
        self.learner.drop()

    def teach_flow(self) -> nn.Module:
        """By the flow objective, all stages. What was learnt, averaged."""
        base, learnt = self.settings, self.learner.begin()
        stages = tuple(range(self.helios.config.schedule.stages))
        loss = self.flow([(self.clips, 1.0)], stages, base.stages == "all")
        self.fit("flow", learnt, loss, self.recipe(base.steps))
        return learnt

    def teach_few_steps(self) -> nn.Module:
        """In two parts; see lessons.py. What was learnt, averaged."""
        base, plan, folder = self.settings, few_steps(self.helios), self.folder / "lessons"
        videos = min(VIDEOS, base.batch)
        kept = self.kept_lessons(plan, videos)
        sets = [(self.clips, NEW), (self.clip_set(kept.clips()), 1 - NEW)] if kept else [(self.clips, 1.0)]
        first = self.learner.begin()
        self.fit(
            "first", first, self.flow(sets, (0,), True), replace(self.recipe(base.first_steps), lr=FIRST_RATE, muon=0.0)
        )
        told = replace(self.clips, drop_caption=0.0)
        make = FirstMaker(self.learner.model, self.most_alike(told), plan.schedule, videos, base.seed)
        lessons = make(folder, base.lessons)
        learnt = self.learner.begin()
        model, bf16 = self.learner.model, base.precision == "bf16"
        loss = FewStepObjective(model, told, lessons, kept, plan, base.batch, base.seed, bf16)
        self.fit("few_steps", learnt, loss, self.recipe(base.steps))
        return learnt

    def flow(self, sets: list, stages: tuple[int, ...], together: bool) -> FlowObjective:
        """The flow objective of this training."""
        base, schedule = self.settings, self.helios.config.schedule
        bf16 = base.precision == "bf16"
        return FlowObjective(
            self.learner.model, sets, schedule, base.batch, stages, together, base.seed, bool(base.shift), bf16
        )

    def most_alike(self, clips: ClipSet) -> ClipSet:
        """Those of the size that most have: lessons are of one size."""
        return replace(clips, clips=[clips.clips[i] for i in max(clips.sizes.values(), key=len)])

    @cached_property
    def learner(self) -> PairLearner | WholeLearner:
        """What learns."""
        base, config = self.settings, self.helios.config.transformer
        checkpointing = base.checkpointing == "on"
        if self.full:
            return WholeLearner(self.helios, checkpointing)
        shapes = self.helios.backend.shapes(config)
        layers = find_layers(shapes, base.targets, blocks_of(base.blocks, config.num_layers))
        return PairLearner(self.helios, layers, base.rank, base.alpha, checkpointing, base.seed)

    @cached_property
    def clips(self) -> ClipSet:
        """The folder's, encoded, and all prompts' rows; text encoder and VAE are let go."""
        self.watch.part("encode", len(self.files))
        self.rows = encode_captions(self.helios, [one.file for one in self.files], tuple(self.more_prompts()))
        cache = folders.cache_folder()
        store = None if cache is None else Store(cache / "encoded", LIMIT)
        encoder = ClipEncoder(self.helios, self.settings.pixels, self.settings.chunks, store)
        return self.clip_set(encode_clips(encoder, self.files, self.watch.step))

    def clip_set(self, clips: list[EncodedClip]) -> ClipSet:
        """To draw batches from, on the device that computes."""
        own = self.helios.config.defaults
        place, drop = self.helios.parts.device, self.settings.drop_caption
        return ClipSet(clips, self.rows, own.max_text_length, own.chunk_latent_frames, place, drop)

    def more_prompts(self) -> list[str]:
        """Those of samples, and those to keep."""
        return [*self.sample_prompts, *(self.kept_prompts if self.settings.few_steps == "on" else ())]

    @cached_property
    def sample_prompts(self) -> list[str]:
        """Those of the sheets."""
        asked = [text.strip() for text in self.settings.sample_prompts.split("|") if text.strip()]
        return asked or list(dict.fromkeys(one.file.captions[0] for one in self.files))[:PROMPTS]

    @cached_property
    def kept_prompts(self) -> list[str]:
        """Whose videos shall stay."""
        file = Path(self.settings.keep) if self.settings.keep else None
        return captions_to_keep(self.helios, file, KEPT_PROMPTS)

    def recipe(self, steps: int) -> Recipe:
        """Of a part of so many steps."""
        base = self.settings
        muon = base.lr if base.optimiser == "muon" else 0.0
        rate = base.lr / MUON if muon else base.lr
        return Recipe(
            steps, lr=rate, muon=muon, decay=base.decay, warmup=min(20, max(1, steps // 10)), weight_decay=0.0,
            ema=base.ema, clip=base.clip, save_every=base.save_every, log_every=base.log_every,
            curves=figures.there(),
        )  # fmt: skip

    def fit(self, name: str, learnt: nn.Module, loss, recipe: Recipe) -> None:
        """One part: trained, watched; what it makes of prompts is drawn, but for the first stage's model."""
        self.watch.part(name, recipe.steps)
        every = self.settings.sample_every if name != "first" else 0
        sheet = SampleSheet(self.helios, self.sample_prompts, self.pixels, self.folder / "samples")

        def watch(step: int, average: nn.Module) -> None:
            if every and rank() == 0 and (step % every == 0 or step == recipe.steps):
                with holding(learnt, average):
                    self.watch.sample(sheet(f"{name}_{step:06d}"))
            self.watch.step(step, recipe.steps)

        fit(learnt, loss, recipe, self.folder / f"{name}.pt", watch)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the latents that most clips have."""
        group = max(self.clips.sizes, key=lambda size: len(self.clips.sizes[size]))
        return group[1:]

    @property
    def pixels(self) -> tuple[int, int]:
        """Width and height of those clips' frames."""
        scale = self.helios.config.vae.scale_factor_spatial
        return self.size[1] * scale, self.size[0] * scale

    def kept_lessons(self, plan: Plan, videos: int) -> KeptLessons | None:
        """What the base makes in its few steps of the prompts to keep; None without any."""
        if not self.kept_prompts:
            return None
        self.learner.drop()
        prompts, rounds = self.kept_prompts, min(self.settings.lessons, -(-len(self.kept_prompts) // videos))
        make = KeptMaker(self.helios, self.learner.model, plan, self.clips, prompts, self.size, videos)
        return make(self.folder / "lessons", rounds)


@torch.inference_mode(False)
def run(settings, helios: Helios, data: Path, folder: Path, output: Path, *, watch: Watch | None = None, full=False):
    """A whole training; settings: `commands.train_lora.LoraSettings`. ValueError before any work for what cannot be."""
    settings = settle(settings, helios)
    files = find_files(helios, data, settings)
    with torch.enable_grad():
        LoraTraining(helios, settings, files, folder, watch or Watch(), full).run(output)
