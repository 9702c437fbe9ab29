"""A checkpoint from one layout into another: what is read, what is asked for, and writing it whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from ..checkpoint import (
    KINDS,
    PARTS,
    TOKENIZER,
    Source,
    Stored,
    check_part,
    check_space,
    check_tokenizer,
    documents,
    gguf_tokenizer,
    held_parts,
    names,
    open_part,
    read_documents,
    read_header,
    read_metadata,
)
from ..devices import libraries
from ..disk import check_folder, check_new, new_folder
from . import gguf_files, gguf_quants, layouts
from .layouts import SPIECE, Contents, Output, dump

FORMATS = ("folder", "single", "comfy", "gguf")
ENDINGS = {".safetensors": "single", ".gguf": "gguf"}


def read_texts(path: Path, sources: dict[str, Source]) -> dict[str, str]:
    """Every JSON file of a checkpoint: path in the published folder -> text. What a file lacks is written anew."""
    if path.is_dir():
        folders = [path, *(path / name for name in (*PARTS, "scheduler"))]
        files = [file for folder in folders for file in sorted(folder.glob("*.json")) if ".index." not in file.name]
        texts = {file.relative_to(path).as_posix(): file.read_bytes().decode() for file in files}
    else:
        texts = documents(read_metadata(path), path)
        if "transformer" in sources:
            texts = {name: dump(value) for name, value in read_documents(path).items()} | texts
    return texts | {f"{part}/config.json": config_text(source) for part, source in sources.items()}


def config_text(source: Source) -> str:
    """A part's config.json to the letter where there is one, else what its shapes say."""
    if source.path.is_dir():
        return (source.path / "config.json").read_bytes().decode()
    return documents(source.metadata, source.path).get(f"{source.part}/config.json") or dump(source.config)


def read_tokenizer(source: Source) -> dict[str, bytes]:
    """The tokenizer's files by name; empty if the text encoder's file has none."""
    place = source.tokenizer
    if place is None:
        return {}
    check_tokenizer(place)
    if isinstance(place, gguf_tokenizer.Inside):
        return place.files()
    if isinstance(place, Path):
        return {p.name: p.read_bytes() for p in sorted(place.iterdir()) if p.is_file()}
    if place.key.endswith(names.SPIECE):
        return {SPIECE: place.read()}
    found = read_header(place.file)
    keys = {name.removeprefix(TOKENIZER): name for name in found if name.startswith(TOKENIZER)}
    keys |= {SPIECE: names.SPIECE} if names.SPIECE in found else {}
    return {name: Stored(found[key].file, key, *found[key][1:]).read() for name, key in keys.items()}


def open_contents(path: Path, parts, *, text_encoder=None, vae=None) -> Contents:
    """What there is to convert. parts: which ones; None is all that the places hold.

    ValueError for a part that is not there.
    """
    places = {"transformer": path, "vae": Path(vae or path), "text_encoder": Path(text_encoder or path)}
    held = [part for part, place in places.items() if place != path or part in held_parts(path)]
    missing = [part for part in parts or () if part not in held]
    if missing:
        raise ValueError(f"{path} holds {', '.join(held)} and no {', '.join(missing)}")
    sources = {part: open_part(places[part], part) for part in parts or held}
    tokenizer = read_tokenizer(sources["text_encoder"]) if "text_encoder" in sources else {}
    return Contents(sources, read_texts(path, sources), tokenizer)


def make_outputs(out: Path, contents: Contents, form: str, kind: str | None) -> list[Output]:
    """The weights files to write. ValueError for what does not go together."""
    if form == "gguf":
        return gguf_outputs(out, contents, kind)
    if kind in (*gguf_quants.KINDS, *gguf_quants.NO_QUANTISER):
        raise ValueError(f"{kind} is a type of GGUF; choose the format gguf, or quantise to {', '.join(KINDS)}")
    if kind is not None:
        libraries.for_files().check_kind(kind)
    if kind is not None and "transformer" not in contents.sources:
        raise ValueError("only the transformer is quantised, and it is not among the parts to convert")
    if form == "single":
        return layouts.single(out, contents, kind)
    if form == "comfy":
        if kind is not None:
            raise ValueError("ComfyUI itself does not read this pack's quantised weights; take the format single")
        return layouts.comfy(out, contents)
    missing = [part for part in PARTS if part not in contents.sources]
    if missing:
        raise ValueError(f"a published folder needs {', '.join(missing)} too; name files that hold them")
    return layouts.folder(out, contents, kind)


def gguf_outputs(out: Path, contents: Contents, kind: str | None) -> list[Output]:
    """One file of one part, or ComfyUI's folders; a VAE stays a safetensors file. ValueError for several in one."""
    gguf_quants.check_kind(kind or gguf_quants.KINDS[0])
    alone = out.suffix == ".gguf"
    if alone and (len(contents.sources) > 1 or "vae" in contents.sources):
        found = ", ".join(contents.sources)
        raise ValueError(f"{out} would hold {found}; a GGUF file holds a transformer or a text encoder: choose --parts")
    outputs = []
    for part, source in contents.sources.items():
        if part == "vae":
            outputs += layouts.comfy(out, contents._replace(sources={part: source}))
        else:
            place = out if alone else out / layouts.PLACES[part] / f"{out.name}_{part}.gguf"
            outputs.append(gguf_files.output(place, contents, part, kind, layouts.metadata(contents, part)))
    return outputs


def convert(
    path, out, *, form: str = "", kind: str | None = None, parts=None, text_encoder=None, vae=None, progress=None
) -> list[Path]:
    """Writes a checkpoint in another layout, and returns the weights files written.

    form: folder, single, comfy or gguf; left open it goes by the name's ending, else it is folder. kind: quantises the
    transformer, in GGUF the text encoder too. parts: which ones, None is all there are, for one GGUF file the first.
    progress: called with done and total bytes. Nothing is overwritten, and after an error nothing is left. ValueError
    before any work where possible.
    """
    path, out = Path(path), Path(out)
    form = form or ENDINGS.get(out.suffix, "folder")
    if form not in FORMATS:
        raise ValueError(f"format {form!r}: wanted one of {', '.join(FORMATS)}")
    if (form == "single") != (out.suffix == ".safetensors") or (form != "gguf" and out.suffix == ".gguf"):
        raise ValueError(f"{out}: a single file's name ends in .safetensors or .gguf, a folder's does not")
    check_new(out)
    alone = out.suffix in ENDINGS
    if out.suffix == ".gguf" and parts is None and text_encoder is None and vae is None:
        parts = held_parts(path)[:1]
    contents = open_contents(path, parts, text_encoder=text_encoder, vae=vae)
    check(contents)
    outputs = make_outputs(out, contents, form, kind)
    check_folder(out.parent)
    check_space(out.parent, sum(output.size for output in outputs))
    with nullcontext(out) if alone else new_folder(out) as place:
        _write([replace(output, path=place / output.path.relative_to(out)) for output in outputs], progress)
        if form == "folder":
            for name, data in layouts.folder_files(outputs, contents).items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(data)
    return [output.path for output in outputs]


def check(contents: Contents) -> None:
    """Every part complete and of its config's shapes, before gigabytes are written."""
    shapes = libraries.for_files().shapes
    for source in contents.sources.values():
        check_part(source, shapes)


def _write(outputs: list[Output], progress: Callable[[int, int], None] | None) -> None:
    total, done = sum(output.size for output in outputs), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done, total)

    for output in outputs:
        output.write(count)
