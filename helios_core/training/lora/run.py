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
from ...pipeline import Helios
from ...steps import CFG
from ..captioned import (
    CheckedFile,
    ClipEncoder,
    ClipSet,
    EncodedClip,
    check_files,
    encode_captions,
    encode_clips,
    find_captioned,
)
from ..captioned.encode import LIMIT
from ..loop import Recipe, fit, rank
from .adapters import find_layers
from .flow import FlowObjective
from .learners import PairLearner, WholeLearner, facts, holding
from .lessons import (
    GUIDANCE,
    KEEP_SEED,
    KEPT,
    MANY,
    FewStepObjective,
    LessonMaker,
    Lessons,
    captions_to_keep,
    few_steps,
    many_steps,
)
from .samples import SampleSheet

SMALL = 100_000_000  # numbers of a transformer: below, whole batches and all stages fit a step
VIDEOS = 24  # of a round of lessons
NEW = 0.6  # share of the first part's samples that are the folder's, where prompts are kept
PROMPTS = 4  # of a sample sheet
CHOICES = {"stages": ("auto", "all", "one"), "precision": ("bf16", "fp32")}
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
    own = helios.config.defaults
    return replace(
        settings,
        alpha=settings.alpha or float(settings.rank),
        steps=settings.steps or (300 if small else 1000),
        lr=settings.lr or (2e-3 if small else 1e-4),
        batch=settings.batch or (24 if small else 1),
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
        clips, base = self.clips, self.settings
        learner, recipe = self.learner, self.recipe(base.steps)
        kept = self.kept_lessons() if base.few_steps == "on" else None
        sets = [(clips, NEW if kept else 1.0)] + ([(self.clip_set(kept.clips()), 1 - NEW)] if kept else [])
        learnt = learner.begin()
        flow = FlowObjective(
            learner.model, sets, replace(self.helios.config.schedule), base.batch, base.stages == "all", base.seed,
            bool(base.shift), base.precision == "bf16",
        )  # fmt: skip
        self.fit("flow", learnt, flow, recipe, self.sheet(base.few_steps == "on"))
        if base.few_steps == "on":
            learnt = self.teach_few_steps(kept)
        if rank() == 0:
            learner.save(learnt, output, facts(base, self.helios, len(clips.clips)))
        learner.drop()

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
        return captions_to_keep(self.helios, file, self.settings.lessons * VIDEOS)

    def recipe(self, steps: int) -> Recipe:
        """Of a part of so many steps."""
        base = self.settings
        return Recipe(
            steps, lr=base.lr, muon=base.muon, decay=base.decay, warmup=min(20, max(1, steps // 10)), weight_decay=0.0,
            ema=base.ema, clip=base.clip, save_every=base.save_every, log_every=base.log_every,
        )  # fmt: skip

    def fit(self, name: str, learnt: nn.Module, loss, recipe: Recipe, sheet: SampleSheet) -> None:
        """One part: trained, watched, sampled."""
        self.watch.part(name, recipe.steps)

        def watch(step: int, average: nn.Module) -> None:
            every = self.settings.sample_every
            if every and rank() == 0 and (step % every == 0 or step == recipe.steps):
                with holding(learnt, average):
                    self.watch.sample(sheet(f"{name}_{step:06d}"))
            self.watch.step(step, recipe.steps)

        fit(learnt, loss, recipe, self.folder / f"{name}.pt", watch)

    def sheet(self, many: bool) -> SampleSheet:
        """many: by the many steps of a flow model, else as the checkpoint is sampled."""
        how = (
            {"steps": (MANY,) * self.helios.config.schedule.stages, "solver": "euler", "cfg": GUIDANCE} if many else {}
        )
        return SampleSheet(self.helios, self.sample_prompts, self.pixels, self.folder / "samples", how)

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

    def maker(self, plan, guide, prompts: list[str], seed: int) -> LessonMaker:
        """Of lessons by the model as it is now."""
        videos = min(VIDEOS, self.settings.batch)
        return LessonMaker(self.helios, self.learner.model, plan, guide, self.clips, prompts, self.size, videos, seed)

    def kept_lessons(self) -> Lessons | None:
        """What the base makes in its few steps of the prompts to keep; None without any."""
        if not self.kept_prompts:
            return None
        make = self.maker(few_steps(self.helios), None, self.kept_prompts, KEEP_SEED)
        return make(self.folder / "lessons", "kept", self.settings.lessons)

    def teach_few_steps(self, kept: Lessons | None) -> nn.Module:
        """The second part; see lessons.py. What was learnt, averaged."""
        base, plan = self.settings, few_steps(self.helios)
        prompts = list(dict.fromkeys(text for clip in self.clips.clips for text in clip.captions))
        make = self.maker(many_steps(plan), CFG(GUIDANCE), prompts, base.seed)
        new = make(self.folder / "lessons", "new", base.lessons)
        learnt = self.learner.begin()
        sets = [(new, 1.0)] if kept is None else [(new, 1 - KEPT), (kept, KEPT)]
        loss = FewStepObjective(
            self.learner.model, sets, self.clips, plan, base.batch, base.seed, base.precision == "bf16"
        )
        self.fit("few_steps", learnt, loss, self.recipe(base.few_step_steps), self.sheet(False))
        return learnt


@torch.inference_mode(False)
def run(settings, helios: Helios, data: Path, folder: Path, output: Path, *, watch: Watch | None = None, full=False):
    """A whole training; settings: `commands.train_lora.LoraSettings`. ValueError before any work for what cannot be."""
    settings = settle(settings, helios)
    files = find_files(helios, data, settings)
    with torch.enable_grad():
        LoraTraining(helios, settings, files, folder, watch or Watch(), full).run(output)
