"""Helios end to end: text -> noise -> pyramid -> steps -> history -> frames, chunk by chunk.

Everything streams: `sample` yields after every step, `generate` also after every chunk, so the caller shows progress,
keeps finished chunks and stops whenever it likes. Components load when they are first used.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from . import pyramid
from .checkpoint import Source, check, folders, open_checkpoint, precision
from .config import model as configs
from .decode import latents
from .devices import OFFLOAD, TILING, VAE_DTYPES, Estimate, libraries, residency
from .generate import ChunkDone, generate
from .history import History, starts
from .noise import batch_noise
from .steps import Plan, SampleStep, check_finite, denoise, plan_chunk
from .text import PromptSchedule, remembered

TINY = Path(__file__).parent / "assets" / "helios-tiny"
CHOICES = {
    "backend": libraries.BACKENDS,
    "weight_dtype": precision.WEIGHT_DTYPES,
    "offload": OFFLOAD,
    "vae_dtype": VAE_DTYPES,
    "vae_tiling": TILING,
}


class Helios:
    """A checkpoint ready to sample. `interrupt`, if set, is called before every block or layer and may raise."""

    def __init__(
        self,
        path: Path,
        config: configs.ModelConfig,
        *,
        weight_dtype="auto",
        offload="auto",
        vae_dtype="fp32",
        vae_tiling="auto",
    ):
        self.path, self.config, self.weight_dtype = path, config, weight_dtype
        self.offload, self.vae_dtype, self.vae_tiling = offload, vae_dtype, vae_tiling
        self.backend_name = "torch"
        self.interrupt: Callable[[], None] | None = None
        self.on_load: Callable[[int], None] | None = None  # told before a component takes so many bytes of the device
        self.on_use: Callable[..., None] | None = None  # told before one computes: its name, itself, bytes it works in
        self.places: dict = {}  # devices of components that the host wants elsewhere than on `device`
        self.handles: weakref.WeakSet[Helios] = weakref.WeakSet()  # others on the same components
        self.cache_folder = folders.cache_folder()
        self.sources: dict[str, Source] = {}  # where the tensors of transformer, vae and text_encoder lie

    @classmethod
    def load(cls, path=None, *, text_encoder=None, vae=None, backend: str = "auto", **options) -> Helios:
        """Reads the configuration and checks every weights file against it; the weights follow when first used.

        path: folder in the published layout, a safetensors file, or None / "helios-tiny". text_encoder, vae: a file or
        a checkpoint's folder to take that part from instead. backend: auto, torch or mlx; see `backends.choose`.
        options: weight_dtype (of the transformer), offload, vae_dtype, vae_tiling, each one of CHOICES. ValueError
        names what is missing or broken.
        """
        for name, value in {"backend": backend, **options}.items():
            if value not in CHOICES.get(name, (value,)):
                raise ValueError(f"{name} {value!r}: wanted one of {', '.join(CHOICES[name])}")
        name = libraries.choose(backend)
        place = TINY if path is None or str(path) == "helios-tiny" else Path(path)
        found = open_checkpoint(place, text_encoder=text_encoder, vae=vae)
        helios = cls(found.path, found.config, **options)
        helios.sources, helios.backend_name = found.sources, name
        check(found.sources, found.config, helios.backend.shapes)
        helios.backend.find_kind(found.sources["transformer"], helios.weight_dtype)
        return helios

    @cached_property
    def backend(self):
        """The module that loads networks."""
        return libraries.open_backend(self.backend_name)

    @cached_property
    def device(self):
        return self.backend.find_device()

    @cached_property
    def offload_mode(self) -> str:
        """none, blocks or sequential: `offload`, or what fits the memory that is free when this is first asked."""
        return residency.choose(self)

    def estimate(self, width: int = 0, height: int = 0) -> Estimate:
        """What videos of that size need of device and host memory; 0 is the checkpoint's own size. Loads nothing."""
        return residency.estimate(self, width, height)

    def needs(self, width: int = 0, height: int = 0) -> list[str]:
        """The estimate and what does not fit, as lines for people."""
        return residency.report(self, width, height)

    @cached_property
    def transformer(self):
        residency.make_room(self, "transformer")
        model = self.backend.load_transformer(
            self.sources["transformer"],
            self.config,
            dtype=self.weight_dtype,
            device=self.device,
            streamed=self.offload_mode == "blocks",
        )
        model.on_block = residency.weakly(self._on_block)
        return model

    @cached_property
    def vae(self):
        residency.make_room(self, "vae")
        place = self.places.get("vae", self.device)
        vae = self.backend.load_vae(
            self.sources["vae"], self.config, dtype=self.vae_dtype, tiling=self.vae_tiling, device=place
        )
        return residency.watched(self, vae)

    @cached_property
    def text_encoder(self):
        """prompt (str or list of str) -> embedding [b 512 d], float32, zeros past each prompt's end."""
        residency.make_room(self, "text_encoder")
        length, place = self.config.defaults.max_text_length, residency.text_device(self)
        encoder = self.backend.load_text_encoder(self.sources["text_encoder"], device=place, max_length=length)
        return residency.watched(self, encoder)

    def ready(self, name: str, width: int = 0, height: int = 0):
        """A component about to compute videos of that size: a host that manages memory may have moved it away."""
        part = getattr(self, name)
        if self.on_use is not None:
            self.on_use(name, part, residency.estimate(self, width, height).work[name])
        return part

    def release(self, *names: str) -> None:
        """Forgets loaded components (transformer, vae, text_encoder); they load again when used."""
        holders = (self, *self.handles)
        if any([holder.__dict__.pop(name, None) is not None for holder in holders for name in names]):
            self.backend.empty_cache()

    def _on_block(self) -> None:
        if self.interrupt is not None:
            self.interrupt()

    def text(self, prompt: str | list[str]):
        """Embedding [b 512 d] of a prompt; an empty one is allowed (the unconditional prompt).

        One asked for before is remembered, with a large encoder on disk too (`cache_folder`; None: never).
        """
        return self.embeddings(prompt)

    @cached_property
    def embeddings(self) -> remembered.Embeddings:
        """What `text` remembers; the encoder is loaded for what it does not know."""
        own = weakref.proxy(self)  # or it would keep its own components alive
        return remembered.remember(
            self.sources["text_encoder"],
            lambda prompt: own.ready("text_encoder")(prompt),
            self.backend.array,
            where=f"{self.backend_name} {self.backend.kind(self.device)}",
            folder=self.cache_folder,
            length=self.config.defaults.max_text_length,
            width=self.config.transformer.text_dim,
        )

    def encode_ahead(self, prompts, negatives=(), *, cfg: float = 0.0) -> None:
        """Encodes what several videos need, negatives where there is guidance, and lets the text encoder go."""
        for prompt in (*prompts, *(negatives if plan_chunk(self.config, 0, cfg=cfg).guide is not None else ())):
            self.text(prompt)
        self.release("text_encoder")

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
        once from the same start; with seed s, element i is what seed s + i gives alone.
        """
        configs.check_size(width, height, self.config.spatial_multiple)
        configs.warn_size(width, height, self.config.defaults.width, self.config.defaults.height)
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
        b, c, h, w = history.shape
        shape = (b, c, self.config.defaults.chunk_latent_frames, h, w)
        return self.backend.array(batch_noise(seed, b).normal(shape, chunk=history.chunk))

    def coarsest(self, history: History) -> tuple[int, ...]:
        """Shape of the coarsest start point."""
        b, c, h, w = history.shape
        scale = 2 ** (self.config.schedule.stages - 1)
        return (b, c, self.config.defaults.chunk_latent_frames, h // scale, w // scale)

    def plan(self, history: History, **options) -> Plan:
        """How the history's next chunk is sampled; options: those of `sampler.plan_chunk`."""
        return plan_chunk(self.config, history.chunk, **options)

    def sample(
        self, history: History, positive, *, seed: int, negative=None, start=None, draw=None, **plan
    ) -> Iterator[SampleStep]:
        """One chunk: an iterator of steps; the last one's latent is the chunk [b c t h w], normalised, on the CPU.

        positive, negative: embeddings [1 or b, 512, d]. start: the coarsest start point, else drawn from the seed.
        draw(stage, shape): numpy draws of the jumps, for tests. plan: steps, solver, boost_first_chunk, shift_tokens,
        cfg (0 is the checkpoint's own, up to 1 none), guidance, zero_steps, shift_clamp; what is left open is the
        checkpoint's own. ValueError at once for what does not fit.
        """
        made = self.plan(history, **plan)
        shape = self.coarsest(history)
        if start is not None and tuple(start.shape) != shape:
            raise ValueError(f"start latent has shape {tuple(start.shape)}; wanted {shape}, the coarsest stage's")
        width, batches = self.config.transformer.text_dim, {1, history.shape[0]}
        for name, text in (("positive", positive), ("negative", negative)):
            if text is None:
                continue
            if len(text.shape) != 3 or text.shape[0] not in batches or text.shape[2] != width:
                raise ValueError(f"{name} has shape {tuple(text.shape)}; wanted [1 or {max(batches)}, tokens, {width}]")
        noise = batch_noise(seed, history.shape[0])
        if made.guide is not None and negative is None:
            negative = self.text("")
        draw = draw or (lambda stage, size: noise.normal(size, chunk=history.chunk, stage=stage, use="block"))
        if start is None:
            start = pyramid.downsample(self.noise(history, seed), (2,) * (made.schedule.stages - 1))
        return self._steps(made, history, positive, negative, start, draw)

    def _steps(self, plan, history, *run) -> Iterator[SampleStep]:
        model = self.ready("transformer", *residency.pixels(self, history))
        # A decorator enters the mode anew for every step: between two, the caller's own mode holds.
        yield from self.backend.inference()(self._run)(model, plan, history, *run)

    def _run(self, model, plan, history, positive, negative, start, draw) -> Iterator[SampleStep]:
        context = model.history_context(history.parts(start.shape[2]))
        text, guide = model.text_context(positive), plan.guide
        none = model.text_context(negative) if guide is not None else None

        def predict(x, t):
            velocity = model.velocity(x, t, text, context)
            return velocity if guide is None else guide(velocity, model.velocity(x, t, none, context))

        finite = []
        for step in denoise(predict, model.array(start), lambda *a: model.array(draw(*a)), plan):
            finite.append((step, self.backend.all_finite(step.latent)))
            self.backend.finish(step.latent, finite[-1][1])
            if step.index + 1 == step.total:
                check_finite(finite)
                step = step._replace(latent=self.backend.to_cpu(step.latent))
            yield step

    def decode(self, latent) -> np.ndarray:
        """Normalised latents [1 c t h w] -> uint8 frames [f h w 3]. A chunk is decoded on its own."""
        return np.concatenate(list(self.stream(latent)))

    def stream(self, latent) -> Iterator[np.ndarray]:
        """Like `decode`, in blocks of frames as they come."""
        for block in self.backend.decode_blocks(
            self.ready("vae", *residency.pixels(self, latent)), self.denormalise(latent)
        ):
            yield self.backend.to_pixels(block)

    def generate(self, prompt: str | PromptSchedule, **options) -> Iterator[SampleStep | ChunkDone]:
        """Steps and finished chunks of a whole video; the options are those of `generate.generate`."""
        return generate(self, prompt, **options)
