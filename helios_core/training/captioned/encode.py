"""Clips and captions through a checkpoint's own VAE and text encoder, once: what they make is kept on disk.

A clip is encoded chunk by chunk, as inference decodes: each chunk begins anew. An entry is found again by the file as
it was, the size and the VAE. Embeddings are kept by the pipeline itself (text/remembered.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...disk import Store, fingerprint
from ...media import UNREADABLE, iter_frames, read_picture
from ...pipeline import Helios
from .buckets import bucket
from .clips import EncodedClip
from .found import Captioned, CheckedFile, tell_skipped

LIMIT = 40_000_000_000  # bytes of all entries
VERSION = 1  # of what an entry holds


@dataclass
class ClipEncoder:
    """Files -> latents at the size that suits them. helios: the checkpoint, on torch. pixels: of a frame, at most.
    chunks: of a clip, at most. store: where they are kept, or None."""

    helios: Helios
    pixels: int
    chunks: int
    store: Store | None = None

    def size(self, one: CheckedFile) -> tuple[int, int]:
        """Width and height that a file is trained at."""
        return bucket(one.width, one.height, self.helios.config.spatial_multiple, self.pixels)

    def __call__(self, one: CheckedFile) -> EncodedClip:
        """Of the store, or made. ValueError, OSError and what else UNREADABLE names for a file that breaks off."""
        size = self.size(one)
        key = self.key(one, size)
        found = self.store.arrays(key) if self.store is not None else None
        if found is None or set(found) != {"latents", "stills"}:
            found = self.make(one, size)
            if self.store is not None:
                self.store.keep(key, found)
        latents, stills = (torch.from_numpy(found[name]).float() for name in ("latents", "stills"))
        normalise = self.helios.normalise
        return EncodedClip(normalise(latents[None])[0], normalise(stills[None])[0], one.file.captions)

    def key(self, one: CheckedFile, size: tuple[int, int]) -> str:
        """Of a file as it is now, at a size, by this VAE."""
        about = [VERSION, fingerprint(one.file.path), size, self.chunks, repr(self.helios.parts.vae_identity)]
        return "clip-" + hashlib.sha256(json.dumps(about).encode()).hexdigest()[:40]

    def make(self, one: CheckedFile, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Raw latents [c t h w] and stills [c chunks h w], float16."""
        if one.frames == 1:
            latent = self.encode(read_picture(one.file.path)[None], size)
            return {"latents": latent.half().numpy(), "stills": latent[:, :0].half().numpy()}
        rows, stills = [], []
        for frames in self.blocks(one.file.path):
            rows.append(self.encode(frames, size))
            stills.append(self.encode(frames[:1], size, held=True)[:, -1])
        return {"latents": torch.cat(rows, 1).half().numpy(), "stills": torch.stack(stills, 1).half().numpy()}

    def blocks(self, path: Path) -> Iterator[np.ndarray]:
        """Whole chunks of a clip's frames, uint8 [f h w 3], from its beginning. ValueError for one that breaks off."""
        kept, size, count = [], self.helios.config.frames_per_chunk, 0
        for frame in iter_frames(path):
            kept.append(frame)
            if len(kept) == size:
                yield np.stack(kept)
                kept, count = [], count + 1
            if count == self.chunks:
                return
        if not count:
            raise ValueError(f"{path}: breaks off after {len(kept)} frames, before the {size} of a chunk")

    def encode(self, frames, size: tuple[int, int], *, held: bool = False) -> Tensor:
        """Frames [f h w 3] -> raw latents [c t h w], the posterior's means; held: one frame, held still for a chunk.

        ValueError for NaN or infinity.
        """
        helios = self.helios
        helios.parts.host.stop()
        pixels = helios.backend.fit(frames, *size)
        if held:
            pixels = pixels.expand(helios.config.frames_per_chunk, -1, -1, -1)
        mean, _ = helios.backend.encode(helios.parts.ready("vae", *size), pixels)
        if not torch.isfinite(mean).all():
            raise ValueError("vae: the latents hold NaN or infinity; run the VAE in fp32")
        return mean[0]


def encode_clips(encoder: ClipEncoder, files: list[CheckedFile], tell: Callable[[int, int], None]) -> list[EncodedClip]:
    """All that can be read to the end; others are named and passed over. tell(done, total). The VAE goes afterwards.

    ValueError where nothing is left.
    """
    made = []
    for i, one in enumerate(files):
        try:
            made.append(encoder(one))
        except UNREADABLE as error:
            tell_skipped(one.file.path, error)
        tell(i + 1, len(files))
    encoder.helios.parts.release("vae")
    if not made:
        raise ValueError(f"none of the {len(files)} files can be read to the end; the first is {files[0].file.path}")
    return made


def encode_captions(helios: Helios, files: list[Captioned], more: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Every caption, the empty one, and `more` -> rows [m d] float32 on the CPU. The text encoder goes afterwards."""
    texts = dict.fromkeys(["", *(text for file in files for text in file.captions), *more])
    found = {text: torch.as_tensor(np.asarray(helios.text(text).rows))[0].clone() for text in texts}
    helios.parts.release("text_encoder")
    return found
