"""A run on disk: its history and seed in one safetensors file, so that it goes on another day, bit for bit.

Every field of History is kept, arrays as float32 tensors of that name, the rest as JSON in the metadata beside the
format's version and the latent space, since numbers from one VAE mean nothing to another.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checkpoint import headers
from ..config import ModelConfig, check_size
from ..disk import check_writable, inside, parse_object, reading, replacing
from ..noise import Noise
from .window import MOMENTS, History

FORMAT, VERSION = "helios-history", 1
SUFFIX = ".safetensors"
UNSAID = ("began", 0)  # what is left out, so that versions from before there were cuts read the file too


class Saved(NamedTuple):
    """What `read` gives: the history before the next chunk, and the run's seed."""

    history: History
    seed: int


def write(path, history: History, *, seed: int, config: ModelConfig) -> Path:
    """Saves a run of the model of `config`; the file appears whole or not at all.

    An earlier run of that name is replaced. ValueError for any other file there; OSError when the disk fails.
    """
    from safetensors.numpy import save

    values = {f.name: getattr(history, f.name) for f in fields(history)}
    arrays = {name: value for name, value in values.items() if hasattr(value, "shape")}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "seed": str(seed),
        "history": json.dumps(
            {k: v for k, v in values.items() if k not in arrays and v is not None and (k, v) != UNSAID}
        ),
        "latent_space": json.dumps(_space(config)),
    }
    data = save({k: np.ascontiguousarray(v, dtype=np.float32) for k, v in arrays.items()}, metadata)
    path = Path(path)
    _check_replaceable(path)
    with replacing(path) as part:
        part.write_bytes(data)
    return path


def check_place(path) -> Path:
    """The path. ValueError, before any work, unless `write` can save a run there."""
    path = check_writable(path)
    _check_replaceable(path)
    return path


def _check_replaceable(path: Path) -> None:
    """Only a run is written over, of whatever model and version: weights and other files stay."""
    if not path.exists():
        return
    try:
        found = headers.read_metadata(path).get("format")
    except (TypeError, ValueError):  # whatever it is
        found = None
    if found != FORMAT:
        raise ValueError(f"{path} is there already and is no saved run, so it is not replaced; choose another name")


def _space(config: ModelConfig) -> dict:
    """What a run must share with the model that goes on with it."""
    mean, std = ([round(v, 4) for v in values] for values in (config.vae.latents_mean, config.vae.latents_std))
    return {"chunk_latent_frames": config.defaults.chunk_latent_frames, "mean": mean, "std": std}


def read(path, config: ModelConfig, array) -> Saved:
    """A run saved by `write`, for the model of `config`; array: numpy -> the backend's arrays.

    ValueError for another kind of file, a damaged one, a newer version's, or another model's.
    """
    path = Path(path)
    metadata, names = _check(path)
    values, space, seed = _parse(path, metadata)
    tensors = _tensors(path, names)
    if unknown := sorted({*values, *tensors} - {f.name for f in fields(History)}):
        raise ValueError(f"{path} holds {', '.join(unknown)}, which this version of the pack does not know; update it")
    _check_shapes(path, tensors, config)
    if space != _space(config):
        raise ValueError(
            f"{path} is a run of another model: its VAE's latents, or its chunk's length, differ from this model's; "
            "load the model it was made with"
        )
    arrays = {name: array(value) for name, value in tensors.items()}
    return Saved(History(**arrays, **{**values, "sizes": tuple(values["sizes"])}), seed)


def read_seed(path) -> int:
    """The seed of a saved run, of whatever model; its tensors are not read."""
    return _parse(Path(path), _check(Path(path))[0])[2]


def read_chunk(path) -> int:
    """How many chunks a saved run has made; its tensors are not read."""
    return int(_parse(Path(path), _check(Path(path))[0])[0].get("chunk", 0))


def _check(path: Path) -> tuple[dict[str, str], list[str]]:
    """Metadata and the tensors' names. ValueError for a damaged file."""
    if not path.is_file():
        raise ValueError(f"no saved run at {path}")
    try:
        header = headers.read_header(path)
    except ValueError as error:
        raise ValueError(f"{path} is no saved run, or a damaged one: {error}") from error
    strange = sorted(f"{name} {info.dtype}" for name, info in header.items() if info.dtype != "F32")
    metadata = headers.read_metadata(path)
    if metadata.get("format") == FORMAT and strange:
        raise ValueError(f"{path} is a damaged saved run: wanted float32, it holds {', '.join(strange)}")
    return metadata, list(header)


def _tensors(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    from safetensors import safe_open

    with reading(path, "saved run"), safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in names}
    if broken := [name for name, values in tensors.items() if not np.isfinite(values).all()]:
        raise ValueError(f"{path} is a damaged saved run: its {broken[0]} holds NaN or infinity; save it again")
    return tensors


def _parse(path: Path, metadata: dict[str, str]) -> tuple[dict, dict, int]:
    """The history's other fields, the latent space and the seed."""
    if metadata.get("format") != FORMAT:
        what = metadata.get("format") or "other tensors, perhaps a model's weights"
        raise ValueError(f"{path} is no saved run: wanted the format {FORMAT!r}, it holds {what}")
    version = metadata.get("version", "")
    if version.isdigit() and int(version) > VERSION:
        raise ValueError(
            f"{path} was saved by a newer version of this pack (format {version}, this one reads {VERSION}); update it"
        )
    try:
        values, space = (parse_object(metadata[name], name) for name in ("history", "latent_space"))
        seed = metadata["seed"]
        kinds = [type(values[name]) for name in ("sizes", "keep_first_frame", "skip_first_chunk", "chunk")]
        began = values.get("began", 0)
        counted = type(began) is int and 0 <= began <= values["chunk"]
        if kinds != [list, bool, bool, int] or {type(n) for n in values["sizes"]} != {int} or not counted:
            raise ValueError(f"the history's fields are {values}")
        return values, space, Noise(int(seed)).seed
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is a damaged saved run ({type(error).__name__}: {error}); save it again") from error


def _check_shapes(path: Path, tensors: dict[str, np.ndarray], config: ModelConfig) -> None:
    window, anchor = (tensors[name].shape if name in tensors else None for name in ("window", "anchor"))
    if window is None or len(window) != 5 or anchor not in (None, (*window[:2], 1, *window[3:])):
        raise ValueError(f"{path} is a damaged saved run: its window is {window}, its anchor {anchor}; save it again")
    moments = {name: tensors[name].shape for name in MOMENTS if name in tensors}
    if set(moments.values()) - {(*window[:2], 2)} or moments and not {*MOMENTS[:2]} <= {*moments}:
        raise ValueError(f"{path} is a damaged saved run: its window is {window}, its moments {moments}; save it again")
    if window[1] != config.vae.z_dim:
        raise ValueError(
            f"{path} is a run of another model: its latents have {window[1]} channels, wanted {config.vae.z_dim}; "
            "load the model it was made with"
        )
    scale = config.vae.scale_factor_spatial
    check_size(window[4] * scale, window[3] * scale, config.spatial_multiple)


def find(name: str, folders: list[Path]) -> Path:
    """A saved run by name, the first of the folders that has it. ValueError names the newest that there are."""
    for path in (inside(folder, name) for folder in folders):
        if path.is_file():
            return path
    found = {p.relative_to(f).as_posix(): p.stat().st_mtime for f in folders for p in f.glob(f"**/*{SUFFIX}")}
    newest = sorted(found, key=found.get, reverse=True)[:5]
    raise ValueError(
        f"no saved run {name!r} in {', '.join(map(str, folders))}; there is {', '.join(newest) or 'none yet'}"
    )
