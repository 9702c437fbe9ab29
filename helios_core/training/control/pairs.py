"""Pairs: the captioned clips of a folder, each with its control video, of another folder or made out of the clip.

A control video has its clip's path below its own folder, by whatever ending. All that can be wrong is found before
anything is encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...disk import Store
from ...media import UNREADABLE, VIDEOS, probe
from ..captioned import Captioned, CheckedFile, ClipEncoder, EncodedClip, check_files, find_captioned
from .extract import EXTRACTORS

OWN = "own"  # the extractor's name where control videos are given


@dataclass(frozen=True)
class ControlPair:
    """A clip and its control video; control None: it is extracted."""

    clip: CheckedFile
    control: Path | None


def find_pairs(folder: Path, controls: Path | None, least: int) -> list[ControlPair]:
    """All of a folder; controls: that of the control videos, None where they are extracted. least: frames of a chunk.

    ValueError for a clip without its control video, for one that is shorter than its clip, for pictures, and as
    `find_captioned` and `check_files` have it.
    """
    if controls is not None and not controls.is_dir():
        raise ValueError(f"--controls {controls}: not a folder; wanted one of the clips' control videos")
    clips = check_files(find_captioned(folder), least)
    if still := [one.file.path.name for one in clips if one.frames < least]:
        raise ValueError(f"--data {folder}: control is trained on clips, and {', '.join(still[:5])} is a picture")
    return [ControlPair(one, controls and find_control(one, folder, controls, least)) for one in clips]


def find_control(clip: CheckedFile, folder: Path, controls: Path, least: int) -> Path:
    """The control video of a clip. ValueError where there is none, or none as long as the clip's whole chunks."""
    place = controls / clip.file.path.relative_to(folder)
    names = [place, *(place.with_suffix(ending) for ending in VIDEOS)]
    found = next((name for name in names if name.is_file()), None)
    if found is None:
        raise ValueError(f"{clip.file.path} has no control video; wanted {place}, or --extract in place of --controls")
    try:
        frames = probe(found).frames
    except UNREADABLE as error:
        raise ValueError(f"{found}: {error}") from error
    if frames < clip.frames // least * least:
        raise ValueError(f"{found} has {frames} frames, its clip {clip.frames}; a control video is as long as its clip")
    return found


class PairEncoder(ClipEncoder):
    """Pairs -> latents, at the clip's size, kept as clips are."""

    def __init__(self, helios, pixels: int, chunks: int, store: Store | None, extractor: str):
        super().__init__(helios, pixels, chunks, store)
        self.extract: Callable | None = EXTRACTORS.get(extractor)  # None: OWN
        self.extractor = extractor

    def pair(self, one: ControlPair) -> tuple[EncodedClip, Tensor]:
        """The clip's latents and the control's, both normalised [c t h w]."""
        clip = self(one.clip)
        source = one.clip.file.path if one.control is None else one.control
        checked = CheckedFile(Captioned(source, ("",)), one.clip.width, one.clip.height, one.clip.frames)
        key = f"control-{self.extractor}-{self.key(checked, self.size(one.clip))}"
        found = self.store.arrays(key) if self.store is not None else None
        if found is None or set(found) != {"control"}:
            found = {"control": self.control(source, self.size(one.clip), clip.latents.shape[1])}
            if self.store is not None:
                self.store.keep(key, found)
        return clip, self.helios.normalise(torch.from_numpy(found["control"]).float()[None])[0]

    def control(self, source: Path, size: tuple[int, int], length: int) -> np.ndarray:
        """Raw latents [c t h w] of a control video, float16. length: latent frames of its clip."""
        rows = []
        for frames in self.blocks(source):
            made = frames if self.extract is None else self.extract(frames)
            rows.append(self.encode(made, size))
        return torch.cat(rows, 1)[:, :length].half().numpy()
