"""A checkpoint as users have it: a published folder, one file of everything, or a transformer file with a VAE and a
text encoder from elsewhere. What it is comes from its own JSON files wherever they are.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..config import GENERATION, INDEX, SCHEDULER, ModelConfig, TransformerConfig, VAEConfig, build, read_json
from ..disk import parse_object
from . import headers, recognise
from .names import split_parts, strip_prefix
from .sources import PARTS, Source, check_network, check_text_encoder, check_tokenizer, documents, open_part

LOG = logging.getLogger(__name__)

# For transformer files that say nothing of themselves: the schedules the variants were trained with.
_PYRAMID = {"_class_name": "HeliosPyramidPipeline"}
_UNIPC = {"_class_name": "HeliosScheduler", "scheduler_type": "unipc", "use_dynamic_shifting": True}
ASSUMED = {
    "base": {
        INDEX: {"_class_name": "HeliosPipeline"},
        SCHEDULER: {**_UNIPC, "stages": 1, "stage_range": [0, 1], "time_shift_type": "exponential"},
    },
    "mid": {
        INDEX: {**_PYRAMID, "is_cfg_zero_star": True, "is_distilled": False},
        SCHEDULER: {**_UNIPC, "stages": 3, "time_shift_type": "exponential"},
    },
    "distilled": {
        INDEX: {**_PYRAMID, "is_distilled": True},
        SCHEDULER: {"_class_name": "HeliosDMDScheduler", "use_dynamic_shifting": True, "time_shift_type": "linear"},
    },
}


class Checkpoint(NamedTuple):
    """path: the transformer's folder or file. sources: by part."""

    path: Path
    config: ModelConfig
    sources: dict[str, Source]


def open_checkpoint(path, *, text_encoder=None, vae=None) -> Checkpoint:
    """Reads configurations and headers, no weights.

    path: a folder in the published layout or a safetensors file. text_encoder, vae: a file, or a checkpoint's folder,
    to take that part from instead. ValueError for what is missing, broken or another model's.
    """
    path = Path(path)
    places = {"transformer": path, "vae": Path(vae or path), "text_encoder": Path(text_encoder or path)}
    for part, place in places.items():
        if not place.exists():
            what = "checkpoint folder or file" if part == "transformer" else part
            raise ValueError(f"no {what} at {place}; wanted a folder in the published layout or a safetensors file")
    with pointing(path):
        read = read_documents(path)
    _check_parts(path, places)
    sources = {}
    for part, place in places.items():
        with pointing(place):
            sources[part] = open_part(place, part)
    try:
        config = build(read, {part: source.config for part, source in sources.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Checkpoint(path, config, sources)


def check(sources: dict[str, Source], config: ModelConfig, shapes: Callable) -> None:
    """Compares the parts' headers with the models that the config describes; reads no weights.

    shapes: a network's config -> published name -> shape of its tensors; a backend knows.
    """
    with pointing(sources["transformer"].path):
        check_network(sources["transformer"], shapes(config.transformer))
    with pointing(sources["vae"].path):
        check_network(sources["vae"], shapes(config.vae))
    with pointing(sources["text_encoder"].path):
        check_part(sources["text_encoder"], shapes)


@contextmanager
def pointing(path: Path):
    """A ValueError meanwhile is raised again, with what tells more of the file."""
    try:
        yield
    except ValueError as error:
        said = str(error).rstrip(".")
        raise ValueError(f"{said}. What the file is: helios inspect {shlex.quote(str(path))}") from error


def check_part(source: Source, shapes: Callable) -> None:
    """The same for one part, against its own config."""
    if source.part == "text_encoder":
        check_text_encoder(source)
        check_tokenizer(source.tokenizer)
    else:
        kind = {"transformer": TransformerConfig, "vae": VAEConfig}[source.part]
        check_network(source, shapes(kind.from_dict(source.config)))


def read_documents(path: Path) -> dict[str, dict]:
    """The JSON files that describe the whole: path in the published folder -> what it holds."""
    if path.is_dir():
        names = [INDEX, SCHEDULER, *([GENERATION] if (path / GENERATION).is_file() else [])]
        return {name: read_json(path / name) for name in names}
    said = documents(headers.read_metadata(path), path)
    if SCHEDULER not in said:
        return ASSUMED[assumed_variant(path)]
    return {name: parse_object(said.get(name, "{}"), f"{path}: {name}") for name in (INDEX, SCHEDULER, GENERATION)}


def assumed_variant(path: Path) -> str:
    """For a file that does not say which variant it is: what its name says, else Distilled."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    named = [variant for variant in ASSUMED if variant in words]
    variant = named[0] if len(named) == 1 else "distilled"
    LOG.warning(
        "%s does not say which variant it is; taken for %s, %s. A file that `helios convert` wrote says so itself.",
        *(path.name, variant.capitalize(), "by its name" if named else "the most common one"),
    )
    return variant


def held_parts(path: Path) -> list[str]:
    """Which parts a checkpoint's folder or file holds."""
    if path.is_dir():
        return [part for part in PARTS if (path / part).is_dir()]
    names = headers.read_header(path)
    parts = split_parts(names)
    if parts is not None:
        return [part for part in PARTS if parts[part]]
    return [recognise.part_of(strip_prefix(names)) or "transformer"]


def _check_parts(path: Path, places: dict[str, Path]) -> None:
    """A transformer's file needs a VAE and a text encoder beside it; says which choice is open."""
    if path.is_dir():
        return
    held = held_parts(path)
    for part, option, file in (
        ("vae", "--vae", "wan_2.1_vae.safetensors"),
        ("text_encoder", "--text-encoder", "umt5_xxl_fp8_e4m3fn_scaled.safetensors or umt5_xxl_fp16.safetensors"),
    ):
        if places[part] == path and part not in held:
            open_part(path, "transformer")  # a wrong file says what it is instead
            raise ValueError(
                f"{path} holds a transformer and no {part}; choose one, such as {file} (the input {part} of "
                f"HeliosLoader, {option} on the command line)"
            )
