"""`helios inspect`: what a file is, its parts, their number formats and sizes, what it lacks, and what runs it."""

from __future__ import annotations

import argparse
import shlex
from collections import Counter
from math import prod
from pathlib import Path

from ..checkpoint import (
    PARTS,
    Source,
    check_part,
    find_checkpoint,
    find_file,
    folders,
    headers,
    held_parts,
    names,
    open_part,
    read_documents,
    recognise,
)
from ..config import INDEX, SCHEDULER, ScheduleConfig, find_variant
from ..control import ADAPTERS, TINY_ADAPTER, find_adapter
from ..control import KIND as CONTROL
from ..devices import libraries, needs
from ..disk import parse_object
from ..disk import read_json_text as read
from ..history import saved
from ..lora import COMPANION
from ..ul import KEY as UL_KEY
from ..ul import open_file
from ..workflow import is_api, is_ui

PROMPT = '--prompt "a red circle moving left"'
OTHERS = {
    "vae": "--vae wan_2.1_vae.safetensors",
    "text_encoder": "--text-encoder umt5_xxl_fp8_e4m3fn_scaled.safetensors",
}
VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif")
LORA = ("lora_A", "lora_B", "lora_down", "lora_up", "lora.down", "lora.up", "hada_w", "lokr_w", "dora_scale")
USES = {
    "vae": "helios generate --model MODEL --vae {file} " + PROMPT,
    "text_encoder": "helios generate --model MODEL --text-encoder {file} " + PROMPT,
    "lora": "helios generate --model MODEL --lora {file} " + PROMPT,
    "control": "helios generate --model MODEL --control CLIP --control-adapter {file} " + PROMPT,
    "saved": "helios generate --model MODEL --resume {file} " + PROMPT,
    "video": "helios generate --video {file} " + PROMPT,
    "picture": "helios generate --image {file} " + PROMPT,
    "workflow": "helios run {file}",
    "ul": "in ComfyUI, Helios Load Unified Latents",
    "companion": "helios generate --model MODEL --lora LORA --lora-companion {file} " + PROMPT,
}
PLACES = {"transformer": "diffusion_models", "vae": "vae", "text_encoder": "text_encoders", "lora": "loras"}


def inspect(args: argparse.Namespace) -> int:
    """Prints what a file or folder is; 0 if something here takes it, else 2. ValueError if there is none."""
    path = find(args.file)
    print(path)
    try:
        usable = _folder(path) if path.is_dir() else _file(path)
    except ValueError as error:
        print(f"  cannot be used: {error}")
        return 2
    return 0 if usable else 2


def find(name: str) -> Path:
    """A path, or the name of a file in models/. ValueError names what there is."""
    if name == folders.TINY and not Path(name).exists():
        return Path(__file__).resolve().parent.parent / "assets" / folders.TINY
    if Path(name).exists():
        return Path(name)
    if name == TINY_ADAPTER:
        return find_adapter(name)
    for kind in ("vae", "text_encoders", "loras", ADAPTERS):
        if name in folders.list_files(kind):
            return find_file(kind, name)
    return Path(find_checkpoint(name))


def tell(what: str, use: str | None, path: Path, place: str | None = None) -> bool:
    """What it is, and what runs it; whether anything does."""
    print(f"  it is {what}")
    if use is not None:
        print(f"  use it: {use.format(file=shlex.quote(str(path)))}")
    if place is not None:
        print(f"  in ComfyUI: in models/{place}")
    return use is not None


def _file(path: Path) -> bool:
    size, ending = path.stat().st_size, path.suffix.lower()
    print(f"  {needs.size(size) if size >= 2**20 else f'{size} bytes'}")
    if ending in folders.WEIGHTS:
        return _weights(path)
    if path.name == COMPANION:
        return tell("what the official training writes beside a LoRA", USES["companion"], path)
    if ending == ".json":
        return _json(path)
    if ending in VIDEOS or ending in PICTURES:
        kind = "video" if ending in VIDEOS else "picture"
        return tell(f"a {kind}, by its name", USES[kind], path)
    seems = recognise.of_bytes(path.open("rb").read(64))
    print(f"  {seems or 'nothing that is known here; wanted .safetensors, .gguf, a workflow, a picture or a video'}")
    return False


def _json(path: Path) -> bool:
    found = read(path)
    if is_ui(found) or is_api(found):
        form = "as ComfyUI's editor saves it" if is_ui(found) else "in the API format"
        return tell(f"a workflow, {form}", USES["workflow"], path)
    if isinstance(found, dict) and "weight_map" in found:
        return tell("the index of a checkpoint's shards; inspect its folder, or the checkpoint's", None, path)
    return tell("a JSON file, and no workflow; a checkpoint is the folder around it", None, path)


def _weights(path: Path) -> bool:
    """A safetensors or GGUF file."""
    header, metadata = headers.read_header(path), headers.read_metadata(path)
    if metadata.get("format") == saved.FORMAT:
        return tell("a saved run, with what the model remembers", USES["saved"], path)
    if UL_KEY in metadata:
        found = open_file(path)
        return tell(f"a Unified Latents model of {', '.join(found.parts)}", USES["ul"], path)
    if CONTROL in metadata:
        facts = parse_object(metadata[CONTROL], path)
        what = f"a control adapter ({facts.get('extractor')}) for models {facts.get('width')} wide"
        return tell(what, USES["control"], path, ADAPTERS)
    ranks = [min(info.shape) for name, info in header.items() if any(m in name for m in LORA) and len(info.shape) > 1]
    if ranks:
        low, high = min(ranks), max(ranks)
        print(f"  {len(ranks)} matrices of rank {low if low == high else f'{low} to {high}'}")
        return tell("a LoRA", USES["lora"], path, PLACES["lora"])
    parts = names.split_parts(header)
    what = None if parts else recognise.of_names(names.strip_prefix(header))
    if not parts and what not in recognise.OURS.values():
        return _foreign(path, header, what)
    return _parts(path, held_parts(path))


def _foreign(path: Path, header: dict, what: str | None) -> bool:
    _print_numbers("", [(info.dtype, headers.nbytes(*info[1:3])) for info in header.values()])
    if path.stem.split("-")[-1].isdigit() and "-of-" in path.stem:
        return tell("one of several shards; inspect the folder that holds them all", None, path)
    known = (
        f"{what}, which nothing here takes"
        if what
        else f"of no model that is known here: {', '.join(list(header)[:4])}"
    )
    return tell(known, None, path)


def _apart(path: Path) -> dict[str, Path]:
    """Part -> its file, of a folder in whose folders, named as ComfyUI's, there is one each; empty for any other."""
    found = {part: sorted((path / PLACES[part]).glob("*")) for part in PARTS}
    files = {part: [file for file in there if file.suffix.lower() in folders.WEIGHTS] for part, there in found.items()}
    return {part: there[0] for part, there in files.items()} if all(len(f) == 1 for f in files.values()) else {}


def _folder(path: Path) -> bool:
    if files := _apart(path):
        sound = all([_try(file, part) for part, file in files.items()])
        options = {"transformer": "--model", "vae": "--vae", "text_encoder": "--text-encoder"}
        named = " ".join(f"{options[part]} {shlex.quote(str(file))}" for part, file in files.items())
        what = f"{_variant(files['transformer'])} in one file per network, in folders as ComfyUI's models has them"
        return tell(what, f"helios generate {named} {PROMPT}" if sound else None, path)
    held = [part for part in PARTS if (path / part).is_dir()]
    if held:
        return _parts(path, held)
    if (path / "config.json").is_file() and any(path.glob("*.safetensors")):
        found = headers.read_headers(path)
        part = recognise.part_of(found)
        if part is None:
            return _foreign(path, found, recognise.of_names(found))
        _part(open_part(path, part))
        if part != "transformer":
            return tell(f"a checkpoint's {part}", USES[part], path.parent)
        return tell("a checkpoint's transformer; what runs is the folder around it", None, path)
    inside = sorted(child.name for child in path.iterdir())
    shown = ", ".join(inside[:6]) or "nothing"
    return tell(f"a folder and no checkpoint: no model_index.json and no transformer; it holds {shown}", None, path)


def _parts(path: Path, held: list[str]) -> bool:
    """A checkpoint, or some of its parts."""
    sound = all([_try(path, part) for part in held])
    if "transformer" not in held:
        what = " and ".join(held).replace("_", " ")
        return tell(f"a {what}", USES[held[0]] if sound else None, path, PLACES[held[0]])
    lacks = [part for part in PARTS if part not in held]
    missing = [part.replace("_", " ") for part in lacks]
    if path.is_dir():
        missing = [f"the folder {part}" for part in lacks]
        missing += [name for name in (INDEX, SCHEDULER) if not (path / name).is_file()]
        sound, lacks = sound and not missing, []
    if missing:
        print(f"  lacks {', '.join(missing)}")
    use = " ".join(["helios generate --model {file}", *(OTHERS[part] for part in lacks), PROMPT])
    return tell(_variant(path), use if sound else None, path, "helios" if path.is_dir() else PLACES["transformer"])


def _variant(path: Path) -> str:
    """Which one, as loading would take it."""
    try:
        said = read_documents(path)
        variant = find_variant(said[INDEX], ScheduleConfig.from_dict(said[SCHEDULER]))
    except (KeyError, ValueError):
        return "a Helios model that does not say which variant it is"
    return f"Helios-{variant.capitalize()}"


def _try(path: Path, part: str) -> bool:
    """Prints a part, and what is wrong with it; whether nothing is."""
    try:
        source = open_part(path, part)
        _part(source)
        check_part(source, libraries.for_files().shapes)
    except ValueError as error:
        print(f"  {part.replace('_', ' ')}: cannot be used: {error}")
        return False
    return True


def _part(source: Source) -> None:
    weights = sum(prod(stored.shape) for stored in source.tensors.values())
    said = {
        "transformer": lambda c: f"{c['num_layers']} blocks of {c['num_attention_heads'] * c['attention_head_dim']}",
        "vae": lambda c: f"{c['z_dim']} channels",
        "text_encoder": lambda c: f"{c['num_layers']} layers of {c['d_model']}",
    }[source.part]
    try:
        sizes = f", {said(source.config)}"
    except (KeyError, TypeError):
        sizes = ""
    tensors = source.tensors.values()
    title = f"{source.part.replace('_', ' ')}: {_count(weights)} weights{sizes}"
    _print_numbers(title, [(s.form or s.dtype, _all_bytes(s)) for s in tensors])
    if source.part == "text_encoder":
        there = source.tokenizer is not None and (not isinstance(source.tokenizer, Path) or source.tokenizer.is_dir())
        print(f"    its tokenizer is {'there' if there else 'missing'}")


def _all_bytes(stored) -> int:
    beside = [part for _, part in stored.marks.parts] if stored.marks else [stored.scale, stored.zero]
    return stored.nbytes + sum(part.nbytes for part in beside if part is not None)


def _count(weights: int) -> str:
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if weights >= size:
            return f"{weights / size:.1f} {unit}"
    return str(weights)


def _print_numbers(title: str, found: list[tuple[str, int]]) -> None:
    """Number formats, the largest first."""
    tensors, sizes = Counter(form for form, _ in found), Counter()
    for form, size in found:
        sizes[form] += size
    listed = ", ".join(f"{form} in {tensors[form]} tensors ({needs.size(size)})" for form, size in sizes.most_common())
    print(f"  {title}{': ' if title else ''}{listed}")
