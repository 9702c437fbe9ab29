"""A trained Unified Latents codec, or a diffusion decoder of another codec's latents, ready to use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from .backends.interface import Backend, ULModel
from .devices import libraries
from .disk import fingerprint
from .ul import Decoded, DecodePlan, ULFile, check_latents, decode, evaluations, open_file, working_memory

ASSETS = Path(__file__).parent / "assets"
SHIPPED = {"helios-tiny": ASSETS / "helios-tiny-ul.safetensors", "photos": ASSETS / "ul-photos.safetensors"}
CLIP = 9  # latents of one chunk of Helios, which are encoded and decoded on their own


class Unified:
    """Encoder and decoder load when they are first used. device: where torch computes; None: the backend's choice.

    on_use: told before one of them computes, as a pipeline's: "vae", the network, bytes that it works in.
    """

    def __init__(self, file: ULFile, backend_name: str, device=None):
        self.file, self.backend_name, self.device = file, backend_name, device
        self.on_use: Callable[..., None] | None = None

    @classmethod
    def load(cls, path, *, backend: str = "auto", device=None) -> Unified:
        """A file, or the name of one that ships. ValueError for one that is missing, broken or untrained."""
        name = libraries.choose(backend)
        place = SHIPPED.get(str(path), Path(path))
        if str(path) in SHIPPED and not place.is_file():
            raise ValueError(
                f"the trained decoder {str(path)!r} is not in this installation, and an untrained one gives noise; "
                "train one with helios train ul or ul-decoder, or choose a file"
            )
        return cls(open_file(place), name, device)

    @property
    def config(self):
        """The file's `ULConfig`."""
        return self.file.config

    @cached_property
    def backend(self) -> Backend:
        """The package that computes."""
        return libraries.open_backend(self.backend_name)

    @cached_property
    def identity(self) -> tuple:
        """What decoded frames depend on beside the arguments: the file as it was when first asked, the library, the
        kind of device."""
        return fingerprint(self.file.path), self.backend_name, self.backend.kind(self._place())

    def _place(self):
        return self.device or self.backend.find_device()

    def _part(self, name: str) -> ULModel:
        return self.backend.load_ul(self.file, (name,), device=self._place())

    @cached_property
    def encoder(self) -> ULModel:
        """A `UL` of the encoder. ValueError if the file has none."""
        return self._part("encoder")

    @cached_property
    def decoder(self) -> ULModel:
        """A `UL` of the decoder. ValueError if the file has none."""
        return self._part("decoder")

    def _ready(self, name: str, shape, block: int = 0):
        """A part about to compute latents of that shape: a host that manages memory may have moved it away."""
        part = getattr(self, name)
        if self.on_use is not None:
            self.on_use("vae", part, working_memory(self.config, shape, block))
        return part

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Frames [b 3 f h w] in [-1, 1] -> raw latents [b c t h w]. ValueError where they do not fill whole latents."""
        config, space = self.config, self.config.stride[1]
        b, _, f, h, w = frames.shape
        time = config.latents(f)
        if h % space or w % space:
            raise ValueError(f"frames of {w}x{h}: wanted multiples of {space} pixels")
        held = np.concatenate([frames[:, :, :1]] * config.hidden + [frames], axis=2)
        with self.backend.inference():
            model = self._ready("encoder", (b, config.latent_channels, time, h // space, w // space), block=time)
            return self.raw(np.asarray(self.backend.to_cpu(model.encoder(self.backend.array(held, model.like)))))

    def normalised(self, z: np.ndarray) -> np.ndarray:
        """Raw latents -> about unit variance, as the decoder was trained on them."""
        return (z - self._stat("latents_mean", 0.0)) / self._stat("latents_std", 1.0)

    def raw(self, z: np.ndarray) -> np.ndarray:
        """Latents of about unit variance -> raw, as sockets and files have them."""
        return z * self._stat("latents_std", 1.0) + self._stat("latents_mean", 0.0)

    def _stat(self, name: str, default: float) -> np.ndarray:
        values = getattr(self.config, name) or [default] * self.config.latent_channels
        return np.asarray(values, dtype=np.float32).reshape(1, -1, 1, 1, 1)

    def stream(
        self, z: np.ndarray, plan: DecodePlan, *, seed: int = 0, pixels: np.ndarray | None = None, clip: int = CLIP,
        first: int = 0,
    ) -> Iterator[Decoded]:  # fmt: skip
        """Raw latents [b c t h w], after every step. clip: latents that belong together, 0 for all; a codec that is not
        causal takes all. pixels: another decoder's frames of all of them, [b 3 f h w] in [-1, 1]. first: the number of
        the first latent in the whole video, which the noise is drawn by.

        ValueError where a decoder that adds to another's frames has none, and several steps.
        """
        check_latents(z.shape, self.config)
        if self.config.with_pixels and pixels is None and plan.steps > 1:
            raise ValueError(
                f"vae: this decoder of {self.config.space!r} adds to the frames of that model's VAE, and in "
                f"{plan.steps} steps without them it would give noise; give the VAE, or set steps to 1"
            )
        z, clip = self.normalised(z), clip if clip and self.config.causal else z.shape[2]
        clips = [z[:, :, i : i + clip] for i in range(0, z.shape[2], clip)]
        totals = [evaluations(self.config, part.shape, plan) for part in clips]
        model, frame = self._ready("decoder", clips[0].shape), 0
        for number, part in enumerate(clips):
            shown = None
            if pixels is not None:
                count = self.config.frames(part.shape[2])
                shown, frame = pixels[:, :, frame : frame + count], frame + count
            given = {"backend": self.backend, "seed": seed, "pixels": shown, "first": first + number * clip}
            steps = decode(model, part, plan, **given)
            while step := self._next(steps):
                yield step._replace(done=sum(totals[:number]) + step.done, total=sum(totals))

    def _next(self, steps: Iterator[Decoded]) -> Decoded | None:
        """One step for inference; what the caller does between two is its own."""
        with self.backend.inference():
            return next(steps, None)

    def decode(self, z: np.ndarray, plan: DecodePlan | None = None, **given) -> np.ndarray:
        """`stream`, to its end: float32 frames [b 3 f h w] in [-1, 1]."""
        steps = self.stream(z, plan or DecodePlan(), **given)
        made = [np.asarray(self.backend.to_cpu(step.frames)) for step in steps if step.frames is not None]
        return np.concatenate(made, axis=2)

    def blocks(self, z: np.ndarray, plan: DecodePlan | None = None, *, pixels=None, **given) -> Iterator[np.ndarray]:
        """`stream` for a file: blocks of uint8 frames [f h w 3] of the first of a batch, which alone is decoded.

        ValueError for NaN or infinity.
        """
        for step in self.stream(z[:1], plan or DecodePlan(), pixels=None if pixels is None else pixels[:1], **given):
            if step.frames is None:
                continue
            if not bool(self.backend.all_finite(step.frames)):
                raise ValueError("the decoder gave NaN or infinity; the latents are broken: look at what made them")
            yield self.backend.to_pixels(step.frames)
