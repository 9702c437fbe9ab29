"""Unified Latents models on disk: one safetensors file that says in its metadata what it is. No framework.

Tensors are named by part and parameter, such as decoder.conv_in.weight; a file may hold any of the parts. The
metadata's helios_ul is a JSON object with the config and the steps that the file was trained for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import Source, Stored, headers
from ..disk import parse_object
from .config import PARTS, ULConfig

KEY = "helios_ul"


@dataclass(frozen=True)
class ULFile:
    """What a file holds, its header checked. source: every tensor; `part` narrows it."""

    path: Path
    config: ULConfig
    steps: int
    parts: tuple[str, ...]
    source: Source

    def narrow(self, wanted: tuple[str, ...]) -> Source:
        """The tensors of some parts. ValueError if one is not there."""
        if missing := [part for part in wanted if part not in self.parts]:
            raise ValueError(f"{self.path} holds no {missing[0]}, only {', '.join(self.parts)}; choose another file")
        tensors = {name: s for name, s in self.source.tensors.items() if name.split(".")[0] in wanted}
        return Source(self.path, "ul", tensors, self.source.config)


def describe(config: ULConfig, steps: int) -> dict[str, str]:
    """A file's metadata."""
    return {"format": "pt", KEY: json.dumps({"config": config.to_dict(), "steps": steps})}


def open_file(path: Path) -> ULFile:
    """ValueError for a file that is missing, broken, another model's, or of weights that were never trained."""
    path = Path(path)
    found, metadata = headers.read_header(path), headers.read_metadata(path)
    if KEY not in metadata:
        raise ValueError(f"{path} is no Unified Latents model; those come from helios train ul")
    try:
        said = parse_object(metadata[KEY], f"{path}: {KEY} in its metadata")
        config, steps = ULConfig.from_dict(said["config"]), int(said["steps"])
    except (KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"{path}: its metadata is broken ({error!r}); write it again") from error
    if steps < 1:
        raise ValueError(f"{path} was never trained and would decode to noise; train it with helios train ul")
    parts = tuple(part for part in PARTS if any(name.startswith(f"{part}.") for name in found))
    tensors = {name: Stored(info.file, name, *info[1:]) for name, info in found.items()}
    return ULFile(path, config, steps, parts, Source(path, "ul", tensors, said["config"]))
