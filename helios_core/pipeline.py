"""Helios end to end: text -> noise -> pyramid -> steps -> history -> frames, chunk by chunk.

Everything streams: `sample` yields after every step, `generate` also after every chunk, so the caller shows progress,
keeps finished chunks and stops whenever it likes. Components load when they are first used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib import import_module, util
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import config as configs
from . import guidance, pyramid, weights
from .history import History
from .noise import Noise
from .sampler import SHIFT_TOKENS, Plan, SampleStep, denoise

TINY = Path(__file__).parent / "assets" / "helios-tiny"
BACKENDS = ("auto", "torch")
DTYPES = ("auto", "bf16", "fp16", "fp32")


class ChunkDone(NamedTuple):
    """A finished chunk. latent: normalised [b c t h w]; frames: uint8 [f h w 3] of the first batch element."""

    chunk: int
    total: int
    latent: Any
    frames: np.ndarray


class Helios:
    """A checkpoint ready to sample. `interrupt`, if set, is called before every transformer block and may raise."""

    def __init__(self, path: Path, config: configs.ModelConfig, *, weight_dtype: str = "auto"):
        self.path, self.config, self.weight_dtype = path, config, weight_dtype
        self.interrupt: Callable[[], None] | None = None

    @classmethod
    def load(cls, path=None, *, backend: str = "auto", weight_dtype: str = "auto") -> Helios:
        """Reads the configuration and checks every weights file against it; the weights follow when first used.

        path: folder in the published layout, or None / "helios-tiny". ValueError names what is missing or broken.
        """
        if backend not in BACKENDS:
            raise ValueError(f"backend {backend!r}: wanted one of {', '.join(BACKENDS)}")
        if weight_dtype not in DTYPES:
            raise ValueError(f"weight_dtype {weight_dtype!r}: wanted one of {', '.join(DTYPES)}")
        if util.find_spec("torch") is None:
            raise ValueError("torch is not installed; install it as pytorch.org says for this machine")
        folder = TINY if path is None or str(path) == "helios-tiny" else Path(path)
        if not folder.is_dir():
            raise ValueError(f"no checkpoint folder at {folder}; wanted one in the published layout, or helios-tiny")
        config = configs.read_folder(folder)
        weights.read_headers(folder / "text_encoder")
        helios = cls(folder, config, weight_dtype=weight_dtype)
        helios.backend.check(folder, config)
        return helios

    @cached_property
    def backend(self):
        """The module that loads networks."""
        return import_module(".backends.torch.load", __package__)

    @cached_property
    def device(self):
        return self.backend.find_device()

    @cached_property
    def transformer(self):
        folder = self.path / "transformer"
        model = self.backend.load_transformer(folder, self.config, dtype=self.weight_dtype, device=self.device)
        model.on_block = self._on_block
        return model

    @cached_property
    def vae(self):
        return self.backend.load_vae(self.path / "vae", self.config, device=self.device)

    @cached_property
    def text_encoder(self):
        """prompt (str or list of str) -> embedding [b 512 d], float32, zeros past each prompt's end."""
        length = self.config.defaults.max_text_length
        return self.backend.load_text_encoder(self.path, device=self.device, max_length=length)

    def release(self, *names: str) -> None:
        """Forgets loaded components (transformer, vae, text_encoder); they load again when used."""
        for name in names:
            self.__dict__.pop(name, None)

    def _on_block(self) -> None:
        if self.interrupt is not None:
            self.interrupt()

    def text(self, prompt: str | list[str]):
        """Embedding [b 512 d] of a prompt; an empty one is allowed (the unconditional prompt)."""
        return self.text_encoder(prompt)

    def normalise(self, z):
        """Raw VAE latents [b c t h w] -> the model's space."""
        return (z - self._stat(z, "mean")) / self._stat(z, "std")

    def denormalise(self, z):
        """The model's latents [b c t h w] -> raw VAE space."""
        return z * self._stat(z, "std") + self._stat(z, "mean")

    def _stat(self, like, name: str):
        values = np.array(getattr(self.config.vae, f"latents_{name}"), dtype=np.float32)
        return self.backend.array(values.reshape(1, -1, 1, 1, 1), like)

    def history(self, width: int, height: int, *, sizes=(16, 2, 1), keep_first_frame: bool = True) -> History:
        """An empty history for videos of width x height pixels (text to video)."""
        configs.check_size(width, height, self.config.spatial_multiple)
        scale = self.config.vae.scale_factor_spatial
        frames = History.length(sizes, keep_first_frame)
        zeros = np.zeros((1, self.config.vae.z_dim, frames, height // scale, width // scale), dtype=np.float32)
        return History(self.backend.array(zeros), sizes=tuple(sizes), keep_first_frame=keep_first_frame)

    def noise(self, history: History, seed: int):
        """White noise [b c t h w] of the history's next chunk at full resolution; what `sample` draws itself."""
        b, c, h, w = history.shape
        shape = (b, c, self.config.defaults.chunk_latent_frames, h, w)
        return self.backend.array(Noise(seed).normal(shape, chunk=history.chunk))

    def coarsest(self, history: History) -> tuple[int, ...]:
        """Shape of the coarsest start point."""
        b, c, h, w = history.shape
        scale = 2 ** (self.config.schedule.stages - 1)
        return (b, c, self.config.defaults.chunk_latent_frames, h // scale, w // scale)

    def plan(self, history: History, *, steps=None, solver="auto", boost_first_chunk=True, shift_tokens=None) -> Plan:
        """How the history's next chunk is sampled; what is left open is the checkpoint's own."""
        defaults = self.config.defaults
        return Plan(
            self.config.schedule,
            tuple(steps or defaults.steps),
            defaults.solver if solver == "auto" else solver,
            boost=boost_first_chunk and defaults.boost_first_chunk and history.chunk == 0,
            shift_tokens=shift_tokens or SHIFT_TOKENS[0],
            patch=self.config.transformer.patch_size,
            chunk=history.chunk,
        )

    def sample(
        self, history: History, positive, *, seed: int, negative=None, start=None, cfg: float = 0.0, draw=None, **plan
    ) -> Iterator[SampleStep]:
        """One chunk: an iterator of steps; the last one's latent is the chunk [b c t h w], normalised, on the CPU.

        positive, negative: embeddings [1 or b, 512, d]. start: the coarsest start point, else drawn from the seed.
        cfg: 0 is the checkpoint's own, up to 1 none. draw(stage, shape): numpy draws of the jumps, for tests.
        plan: steps, solver, boost_first_chunk, shift_tokens. ValueError at once for what does not fit.
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
        guide = self._guide(cfg)
        noise = Noise(seed)
        if guide is not None and negative is None:
            negative = self.text("")
        draw = draw or (lambda stage, size: noise.normal(size, chunk=history.chunk, stage=stage, use="block"))
        if start is None:
            start = pyramid.downsample(self.noise(history, seed), (2,) * (made.schedule.stages - 1))
        return self._steps(made, history, positive, negative, guide, start, draw)

    def _guide(self, cfg: float) -> guidance.CFG | None:
        return guidance.from_scale(cfg or self.config.defaults.cfg)

    def _steps(self, *run) -> Iterator[SampleStep]:
        model = self.transformer
        # A decorator enters the mode anew for every step: between two, the caller's own mode holds.
        yield from self.backend.inference()(self._run)(model, *run)

    def _run(self, model, plan, history, positive, negative, guide, start, draw) -> Iterator[SampleStep]:
        context = model.history_context(history.parts(start.shape[2]))
        text = model.text_context(positive)
        none = model.text_context(negative) if guide is not None else None

        def predict(x, t):
            velocity = model.velocity(x, t, text, context)
            return velocity if guide is None else guide(velocity, model.velocity(x, t, none, context))

        finite = []
        for step in denoise(predict, model.array(start), lambda *a: model.array(draw(*a)), plan):
            finite.append((step, self.backend.all_finite(step.latent)))
            if step.index + 1 == step.total:
                check_finite(finite)
                step = step._replace(latent=self.backend.to_cpu(step.latent))
            yield step

    def decode(self, latent) -> np.ndarray:
        """Normalised latents [1 c t h w] -> uint8 frames [f h w 3]. A chunk is decoded on its own."""
        return np.concatenate(list(self.stream(latent)))

    def stream(self, latent) -> Iterator[np.ndarray]:
        """Like `decode`, in blocks of frames as they come."""
        for block in self.backend.stream(self.vae, self.denormalise(latent)):
            yield self.backend.to_pixels(block)

    def generate(
        self,
        prompt: str,
        *,
        width: int = 0,
        height: int = 0,
        frames: int = 132,
        seed: int = 0,
        negative: str | None = None,
        history: History | None = None,
        **options,
    ) -> Iterator[SampleStep | ChunkDone]:
        """Steps and finished chunks of a video of at least `frames` frames (whole chunks of 33).

        width, height: 0 is the checkpoint's own. history: continue from there. options: as `sample`.
        """
        if not prompt.strip():
            raise ValueError("the prompt is empty; say what the video should show")
        if frames < 1:
            raise ValueError(f"frames {frames}: wanted at least 1")
        defaults = self.config.defaults
        history = history or self.history(width or defaults.width, height or defaults.height)
        Noise(seed)
        self._guide(options.get("cfg", 0.0))
        self.plan(history, **{k: v for k, v in options.items() if k in PLAN_OPTIONS})
        return self._chunks(prompt, negative, history, math.ceil(frames / self.config.frames_per_chunk), seed, options)

    def _chunks(self, prompt, negative, history, total, seed, options):
        positive, none = self.text(prompt), self.text(negative or "")
        self.release("text_encoder")
        for _ in range(total):
            for step in self.sample(history, positive, seed=seed, negative=none, **options):
                yield step
            history = history.append(step.latent)
            yield ChunkDone(step.chunk, total, step.latent, self.decode(step.latent))


PLAN_OPTIONS = ("steps", "solver", "boost_first_chunk", "shift_tokens")


def check_finite(steps: list) -> None:
    """Raises for the first step whose latent holds NaN or infinity. steps: (SampleStep, flag) pairs."""
    for step, finite in steps:
        if not bool(finite):
            raise ValueError(
                f"chunk {step.chunk + 1}, stage {step.stage + 1}, step {step.index + 1} of {step.total}: the latent "
                "holds NaN or infinity. Try weight_dtype fp32 or bf16, and check that the weights are complete."
            )
