"""What a backend is: the names that the packages torch and mlx hand on, and their networks as the core calls them.

Written down here and nowhere else; tests/backends/test_interface.py holds both packages and their networks to it.
Arrays are the backend's own, float32 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from ..checkpoint import Source, Stored
from ..config import ModelConfig, TransformerConfig, VAEConfig
from ..lora import Changes
from ..text import Embedding
from ..ul import ULConfig, ULFile

Array = Any  # torch.Tensor or mx.array
Device = Any  # torch.device or mx.Device


class Transformer(Protocol):
    """The video model. `on_block`, if set, is called before every block (MLX: every step) and may raise to stop."""

    config: TransformerConfig
    on_block: Callable[[], None] | None

    @property
    def dtype(self) -> Any:
        """The type of its matrix products."""

    def array(self, values) -> Array:
        """Numbers of any library, where the model computes."""

    def text_context(self, embedding) -> Any:
        """What `velocity` needs of a prompt, an `Embedding` or an array [b m text_dim]; the last two are kept."""

    def history_context(self, parts) -> Any:
        """What `velocity` needs of a `history.HistoryParts`, its control tokens among it, once per chunk."""

    def velocity(self, x: Array, t: float, text: Any, history: Any = None) -> Array:
        """The flow's velocity [b c t h w] at latents x [b c t h w] and one timestep; the contexts are not changed."""

    def velocities(self, x: Array, t: float, texts, history: Any = None) -> list[Array]:
        """`velocity` for several text contexts, such as the two of guidance; streamed weights are fetched once."""

    def forget(self) -> None:
        """Drops what is kept of prompts and sizes."""


class VAE(Protocol):
    """Frames in [-1, 1] <-> raw latents; factor: frames and pixels to a latent. tiling: auto, on or off."""

    config: VAEConfig
    tiling: str
    factor: tuple[int, int]

    @property
    def dtype(self) -> Any:
        """The type of its weights, which its inputs must have."""

    @property
    def device(self) -> Device:
        """Where it computes, and its inputs must lie."""

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Frames [b 3 1+4n 8h 8w] -> mean and log variance, each [b c 1+n h w]."""

    def decode(self, z: Array, clamp: bool = True) -> Array:
        """Latents [b c 1+n h w] -> frames [b 3 1+4n 8h 8w]; clamp: to [-1, 1]."""

    def stream(self, z: Array, latents_per_step: int | None = None) -> Iterator[Array]:
        """`decode` in blocks of frames as they are done."""

    def decode_tiled(self, z: Array, tile: int | tuple[int, int] = 32, overlap: int | tuple[int, int] = 8) -> Array:
        """`decode` in tiles of latents that are cross-faded; near to it, not equal."""


class TextEncoder(Protocol):
    """UMT5 with its tokenizer. tokenize: prompts -> token ids per prompt, at most max_length."""

    model: Any
    tokenize: Callable[[list[str]], list[list[int]]]
    max_length: int

    def __call__(self, prompt: str | list[str]) -> Embedding:
        """Cleaned prompts -> rows [b n d], exactly zero past each prompt's end; their length is max_length."""


class ULModel(Protocol):
    """Parts of a Unified Latents model; encoder(frames) and decoder(...) are networks, there if `parts` names them."""

    config: ULConfig
    parts: tuple[str, ...]

    @property
    def like(self) -> Array:
        """An array of the device and type that it computes on."""

    def past(self) -> Any:
        """The memory of a clip of which nothing was decoded yet."""


class Backend(Protocol):
    """The package itself, a module. CPU: the device that is always there. inference: a context for computing without
    gradients, which also decorates functions and generators."""

    CPU: Device
    inference: Callable[[], AbstractContextManager]

    # Arrays

    def array(self, values, like: Array | None = None) -> Array:
        """Numbers of any library as float32: on the CPU, or where `like` is."""

    def to_cpu(self, x: Array) -> Array:
        """float32 on the CPU, computed, so that numpy may read it."""

    def finish(self, *arrays: Array) -> None:
        """Has them computed where a library is lazy."""

    def all_finite(self, x: Array) -> Any:
        """A truth value that may be on its way, so that making it does not wait; then it has `arrived`: whether
        looking at it waits no more."""

    # Devices

    def find_device(self) -> Device:
        """The fastest that there is."""

    def kind(self, device) -> str:
        """cpu, cuda, mps or metal."""

    def free_memory(self, device) -> int | None:
        """Bytes that can still be had there; None where nobody says."""

    def fast_bf16(self, device) -> bool:
        """Whether it multiplies bfloat16 at speed, so that a weight dtype of auto may choose that."""

    def place(self, model, device, *, streamed: bool = False) -> None:
        """Moves a loaded network to a device; streamed: a transformer's blocks stay in host memory."""

    def empty_cache(self) -> None:
        """Gives memory back that nobody refers to any more."""

    # Networks

    def shapes(self, config: TransformerConfig | VAEConfig) -> dict[str, tuple[int, ...]]:
        """Published name -> shape of every tensor, in the files' layout."""

    def check_ways(
        self, source: Source, config: ModelConfig, device, *, dtype: str, attention="auto", products="auto",
        compile="auto",
    ) -> None:  # fmt: skip
        """ValueError for ways to compute a transformer (devices.ways) that are not there, or not for its numbers."""

    def load_transformer(
        self, source: Source, config: ModelConfig, *, dtype: str, device, streamed: bool = False,
        attention: str = "auto", products: str = "auto", compile: str = "auto",
    ) -> Transformer:  # fmt: skip
        """Ready for inference; dtype: one of the weight dtypes. streamed: its blocks stay in host memory."""

    def load_vae(
        self, source: Source, config: ModelConfig, *, dtype: str = "fp32", tiling: str = "auto", device
    ) -> VAE:
        """Ready for inference."""

    def load_text_encoder(self, source: Source, *, device, dtype: Any = None, max_length: int = 512) -> TextEncoder:
        """With its tokenizer; dtype None: the file's."""

    def load_ul(self, file: ULFile, parts: tuple[str, ...], *, device) -> ULModel:
        """Some of a file's parts, in float32. ValueError for one that the file or the backend has not."""

    def adapt(self, model: Transformer, changes: Changes, *, merge: bool, shared: bool = True) -> Transformer:
        """The model with LoRAs: a copy that shares what is unchanged or, not shared, the model itself."""

    def watch(self, network, check) -> None:
        """Has check(), which may raise, called as a VAE or text encoder computes, where the library lets it."""

    # Pictures

    def fit(self, frames, width: int, height: int) -> Array:
        """Frames [f h w 3], uint8 or 0 to 1 -> [f height width 3] from 0 to 1, cropped and resized."""

    def encode(self, vae: VAE, frames: Array) -> tuple[Array, Array]:
        """Frames [f h w 3] from 0 to 1 -> mean and standard deviation of raw latents, each [1 c t h w], on the CPU."""

    def to_device(self, vae: VAE, x) -> Array:
        """Numbers of any library as the VAE takes them."""

    def decode_blocks(self, vae: VAE, z) -> Iterator[Array]:
        """Raw latents [b c t h w] -> blocks of frames [b 3 f h w] in [-1, 1], in tiles where that is asked for."""

    def stream_pixels(self, blocks: Iterator[Array]) -> Iterator[np.ndarray]:
        """`to_pixels` of block after block; a device may have begun the next one before one is waited for."""

    def to_pixels(self, frames: Array) -> np.ndarray:
        """Frames [b 3 f h w] in [-1, 1] -> uint8 [f h w 3] of the first of the batch. ValueError for NaN."""

    def own_copy(self, model) -> Any:
        """A network that takes part in gradients: itself, or a copy."""

    def pull_vae(self, vae: VAE, z, draw: Callable[[tuple], list[np.ndarray]]) -> list[np.ndarray]:
        """J^T r for every r of draw(frames' shape), J the derivative of decoding at raw latents z."""

    # Files

    def find_kind(self, source: Source, weight_dtype: str) -> str | None:
        """How a transformer of that file and weight dtype is quantised. ValueError where that cannot be."""

    def check_kind(self, kind: str) -> Any:
        """ValueError for a quantisation that the backend has not."""

    def check_finite(self, name: str, stored: Stored) -> None:
        """ValueError for NaN or infinity."""

    def quantised_bytes(self, name: str, stored: Stored, kind: str) -> Iterator[tuple[str, list]]:
        """A stored weight in fewer bits: the names and bytes of what it becomes."""

    def as_float32(self, stored: Stored) -> np.ndarray:
        """The float32 numbers of a stored weight, its factors applied."""
