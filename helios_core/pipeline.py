"""Helios end to end: text -> noise -> pyramid -> steps -> history -> frames, chunk by chunk.

Three things: the checkpoint (what it is), its parts (the networks: where they are), and this, what is done with them.
Everything streams: `sample` yields after every step, `generate` also after every chunk, so the caller shows progress,
keeps finished chunks and stops whenever it likes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from . import pyramid
from .checkpoint import Checkpoint, check, folders, open_checkpoint
from .config import ModelConfig, check_size, warn_size
from .control import Control, adapted, check_controls, control_tokens, identities
from .decode import latents
from .devices import BACKENDS, Choices, Host, KeptWeights, Loaded, Parts, libraries, pixels
from .generate import ChunkDone, generate
from .history import History, chunk_noise, starts
from .noise import batch_noise
from .steps import FiniteCheck, Plan, SampleStep, denoise, plan_chunk
from .text import Embedding, PromptSchedule, remembered

LOG = logging.getLogger(__name__)

TINY = Path(__file__).parent / "assets" / "helios-tiny"
DEFAULT = "the platform's"  # of cache_folder: where HELIOS_CACHE or the platform says


class Helios:
    """A checkpoint ready to sample. embeddings: prompt -> embedding, remembered. controls: what its chunks see beside
    the noise (with_control.py)."""

    def __init__(self, checkpoint: Checkpoint, parts: Parts, embeddings: remembered.Embeddings, controls=()):
        self.checkpoint, self.parts, self.embeddings, self.controls = checkpoint, parts, embeddings, controls

    @classmethod
    def load(
        cls, path=None, *, text_encoder=None, vae=None, backend="auto", host: Host | None = None, cache_folder=DEFAULT,
        weights_folder=DEFAULT, **choices,
    ) -> Helios:  # fmt: skip
        """Reads the configuration and checks every weights file against it; the weights follow when first used.

        path: folder in the published layout, a safetensors file, or None / "helios-tiny". text_encoder, vae: a file or
        a checkpoint's folder to take that part from instead. backend: auto, torch or mlx. host: the program around it.
        cache_folder: where embeddings of a large text encoder are kept; None: nowhere. weights_folder: the same of
        weights that are quantised as they load. choices: those of
        devices.Choices, such as weight_dtype. ValueError names what is missing or broken.
        """
        if backend not in BACKENDS:
            raise ValueError(f"backend {backend!r}: wanted one of {', '.join(BACKENDS)}")
        chosen, library = Choices(**choices), libraries.choose(backend)
        place = TINY if path is None or str(path) == "helios-tiny" else Path(path)
        checkpoint = open_checkpoint(place, text_encoder=text_encoder, vae=vae)
        kept = KeptWeights.of(folders.cache_folder() if weights_folder is DEFAULT else weights_folder)
        parts = Parts(checkpoint, library, chosen, host or Host(), loaded=Loaded(kept=kept))
        check(checkpoint.sources, checkpoint.config, parts.backend.shapes)
        parts.backend.find_kind(checkpoint.sources["transformer"], chosen.weight_dtype)
        parts.check_ways()
        return cls(checkpoint, parts, remember(parts, cache_folder))

    def with_parts(self, parts: Parts) -> Helios:
        """The same checkpoint and remembered prompts on other parts, such as those with LoRAs."""
        return Helios(self.checkpoint, parts, self.embeddings, self.controls)

    def controlled(self, controls: tuple[Control, ...]) -> Helios:
        """The same with these controls, and no others."""
        made = self.with_parts(self.parts)
        made.controls = tuple(controls)
        return made

    def control_identity(self, chunk: int) -> tuple:
        """What a chunk depends on by its controls; empty where none acts."""
        return identities(self.controls, chunk)

    @property
    def config(self) -> ModelConfig:
        """The checkpoint's configuration."""
        return self.checkpoint.config

    @property
    def backend(self):
        """What computes (backends/interface.py)."""
        return self.parts.backend

    def text(self, prompt: str | list[str]) -> Embedding:
        """Of a prompt or several; an empty one is allowed (the unconditional prompt)."""
        return self.embeddings(prompt)

    def encode_ahead(self, prompts, negatives=(), *, cfg: float = 0.0) -> list[str]:
        """Encodes what several videos need, negatives where there is guidance, and lets the text encoder go. The
        prompts that were encoded."""
        guided = plan_chunk(self.config, 0, cfg=cfg).guide is not None
        needed = [*prompts, *(negatives if guided else ())]
        for prompt in needed:
            self.text(prompt)
        self.parts.release("text_encoder")
        return needed

    def normalise(self, z):
        """Raw VAE latents [b c t h w] -> the model's space."""
        return latents.normalise(z, self.config.vae, self.backend.array)

    def denormalise(self, z):
        """The model's latents [b c t h w] -> raw VAE space."""
        return latents.denormalise(z, self.config.vae, self.backend.array)

    def history(
        self, width, height, *, sizes=(16, 2, 1), keep_first_frame=True, skip_first_chunk=False, batch=1, **start
    ) -> History:
        """The history before the first chunk of a video of width x height pixels; empty is text to video.

        start: image, video or latent to start from, and how, as `starts.begin` takes them. batch: that many videos at
        once from the same start; with seed s, element i is what seed s + i gives alone. ValueError for a size that the
        pyramid cannot halve.
        """
        check_size(width, height, self.config.spatial_multiple)
        warn_size(width, height, self.config.defaults.width, self.config.defaults.height)
        scale = self.config.vae.scale_factor_spatial
        frames = History.length(sizes, keep_first_frame)
        zeros = np.zeros((1, self.config.vae.z_dim, frames, height // scale, width // scale), dtype=np.float32)
        empty = History(
            self.backend.array(zeros),
            sizes=tuple(sizes),
            keep_first_frame=keep_first_frame,
            skip_first_chunk=skip_first_chunk,
        )
        return starts.begin(self, empty, **start).repeat(batch)

    def noise(self, history: History, seed: int):
        """White noise [b c t h w] of the history's next chunk at full resolution; what `sample` draws itself."""
        return self.backend.array(chunk_noise(history, seed, self.config.defaults.chunk_latent_frames))

    def coarsest(self, history: History) -> tuple[int, ...]:
        """Shape of the coarsest start point of the history's next chunk."""
        b, c, h, w = history.shape
        scale = 2 ** (self.config.schedule.stages - 1)
        return (b, c, self.config.defaults.chunk_latent_frames, h // scale, w // scale)

    def plan(self, history: History, **options) -> Plan:
        """How the history's next chunk is sampled; options: those of `steps.plan_chunk`."""
        return plan_chunk(self.config, history.chunk, history.began, **options)

    def sample(
        self, history: History, positive, *, seed: int, negative=None, start=None, draw=None, **plan
    ) -> Iterator[SampleStep]:
        """One chunk: an iterator of steps; the last one's latent is the chunk [b c t h w], normalised, on the CPU.

        positive, negative: embeddings of 1 or b prompts, or arrays [1 or b, tokens, d]. start: the coarsest start
        point, else drawn from the seed. draw(stage, shape): numpy draws of the jumps, for tests. plan: steps, solver,
        boost_first_chunk, shift_tokens, cfg (0 is the checkpoint's own, up to 1 none), guidance, zero_steps,
        shift_clamp; what is left open is the checkpoint's own. ValueError at once for what does not fit.
        """
        made = self.plan(history, **plan)
        if start is not None:
            check_start(start, self.coarsest(history), made.schedule.stages)
        for name, text in (("positive", positive), ("negative", negative)):
            check_text(name, text, history.shape[0], self.config.transformer.text_dim)
        check_controls(self.controls, history.shape, history.chunk)
        noise = batch_noise(seed, history.shape[0])
        if made.guide is not None and negative is None:
            negative = self.text("")
        draw = draw or (lambda stage, size: noise.normal(size, chunk=history.chunk, stage=stage, use="block"))
        if start is None:
            start = pyramid.downsample(self.noise(history, seed), (2,) * (made.schedule.stages - 1))
        return self._steps(made, history, positive, negative, start, draw)

    def _steps(self, plan, history, *run) -> Iterator[SampleStep]:
        parts = adapted(self.parts, self.controls, history.chunk)
        model = parts.ready("transformer", *self.pixels(history), history.shape[0])
        # A decorator enters the mode anew for every step: between two, the caller's own mode holds.
        yield from self.backend.inference()(self._run)(model, plan, history, *run)

    def _run(self, model, plan, history, positive, negative, start, draw) -> Iterator[SampleStep]:
        beside = control_tokens(self.controls, history.chunk, model, plan.schedule.stages)
        context = model.history_context(history.parts(start.shape[2])._replace(control=beside))
        text, guide = model.text_context(positive), plan.guide
        none = model.text_context(negative) if guide is not None else None

        def predict(x, t):
            if guide is None:
                return model.velocity(x, t, text, context)
            return guide(*model.velocities(x, t, (text, none), context))

        finite = FiniteCheck()
        for step in denoise(predict, model.array(start), lambda *a: model.array(draw(*a)), plan):
            flag = self.backend.all_finite(step.latent)
            self.backend.finish(step.latent, flag)
            finite.after(step, flag)
            if step.index + 1 == step.total:
                step = step._replace(latent=self.backend.to_cpu(step.latent))
            yield step

    def pixels(self, latent) -> tuple[int, int]:
        """Width and height of the frames of latents, or of a history."""
        return pixels(latent, self.config.vae.scale_factor_spatial)

    def stream(self, latent) -> Iterator[np.ndarray]:
        """Normalised latents [b c t h w] -> blocks of uint8 frames [f h w 3] of the first, as they are decoded.

        A chunk is decoded on its own.
        """
        latent = self.denormalise(latent[:1])
        vae = self.parts.ready("vae", *self.pixels(latent))
        yield from self.backend.stream_pixels(self.backend.decode_blocks(vae, latent))

    def decode(self, latent) -> np.ndarray:
        """`stream`, to its end: uint8 frames [f h w 3]."""
        return np.concatenate(list(self.stream(latent)))

    def generate(self, prompt: str | PromptSchedule, **options) -> Iterator[SampleStep | ChunkDone]:
        """Steps and finished chunks of a whole video; the options are those of `generate.generate`."""
        return generate(self, prompt, **options)


def remember(parts: Parts, folder) -> remembered.Embeddings:
    """The embeddings of a checkpoint's text encoder, which is loaded for a prompt that was never seen."""
    config = parts.checkpoint.config
    tell = tell_words() if parts.checkpoint.path == TINY else lambda prompt: None

    def encode(prompt: str) -> Embedding:
        tell(prompt)
        return parts.ready("text_encoder")(prompt)

    return remembered.remember(
        parts.checkpoint.sources["text_encoder"],
        encode,
        parts.backend.array,
        where=f"{parts.library} {parts.backend.kind(parts.device)}",
        folder=folders.cache_folder() if folder is DEFAULT else folder,
        length=config.defaults.max_text_length,
        width=config.transformer.text_dim,
    )


def tell_words() -> Callable[[str], None]:
    """What logs, for the first prompt with words that helios-tiny was not taught, which they are."""
    from .drawn import words

    said = []

    def tell(prompt: str) -> None:
        if not said and (line := words.told(prompt)):
            said.append(line)
            LOG.warning("%s", line)

    return tell


def check_start(start, wanted: tuple[int, ...], stages: int) -> None:
    """ValueError unless a start point has the coarsest stage's shape."""
    if tuple(start.shape) != wanted:
        raise ValueError(
            f"latent: the coarsest start of this size must be {list(wanted)}, got {list(start.shape)}. Wire "
            f"HeliosNoise through PyramidDownsample with factors {','.join(['2'] * (stages - 1)) or '1'!r}, or leave "
            "it open"
        )


def check_text(name: str, text, batch: int, width: int) -> None:
    """ValueError unless an embedding, if there is one, is [1 or batch, tokens, width]."""
    if text is not None and (len(text.shape) != 3 or text.shape[0] not in {1, batch} or text.shape[2] != width):
        raise ValueError(f"{name} has shape {tuple(text.shape)}; wanted [1 or {batch}, tokens, {width}]")
