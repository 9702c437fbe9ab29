"""helios-tiny has never seen a star or a pink heart. Forty drawn clips, one training, and a table from pixels.

    python tests/benchmarks/star_and_heart.py FOLDER
    python tests/benchmarks/star_and_heart.py FOLDER --ranks 16 --threads 2

draws the clips, a captions.csv beside them, into FOLDER/clips; trains by `helios train lora` (one file per rank, gone
on with where it was stopped); then reads the pixels of 48 prompts of new things, whose combinations of colour, motion
and background no clip has, and of 48 held-out prompts of the old vocabulary, before and after, at several strengths.
The judge knows the new shapes and colour everywhere. Writes table.md, results.json and sheet.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from helios_video.helios_core import load
from helios_video.helios_core.cli import main as helios_command
from helios_video.helios_core.drawn import bench, reading, scenes
from helios_video.helios_core.join import video
from helios_video.helios_core.with_loras import with_loras
from PIL import Image
from safetensors.torch import load_file, save_file

STRENGTHS = (0.25, 0.5, 0.75, 1.0)
CLIPS, PROMPTS, FRAMES = 40, 48, 66
PICTURES = 6  # prompts of the sheet, half of each kind
PLACES = list(product(scenes.MOTIONS, scenes.BACKGROUNDS))


def new_scenes() -> tuple[list[scenes.Scene], list[scenes.Scene]]:
    """(40 to learn from, 48 to be asked for): half of each pink hearts, half stars in the eight old colours.

    Of the 24 combinations of motion and background, hearts are learnt in 12 and asked for in the others; stars in
    combinations with a colour that no clip has.
    """
    rng = np.random.default_rng(5)
    mixed = rng.permutation(len(PLACES))
    learnt, asked = mixed[::2], mixed[1::2]
    train = [("pink", "heart", *PLACES[learnt[i % 12]]) for i in range(CLIPS // 2)]
    test = [("pink", "heart", *PLACES[asked[i % 12]]) for i in range(PROMPTS // 2)]
    stars = [(colour, "star", *place) for colour in scenes.COLOURS for place in PLACES]
    drawn = rng.permutation(len(stars))
    train += [stars[i] for i in drawn[: CLIPS // 2]]
    test += [stars[i] for i in drawn[CLIPS // 2 : CLIPS // 2 + PROMPTS // 2]]
    return [placed(rng, *what) for what in train], [placed(rng, *what) for what in test]


def placed(rng: np.random.Generator, colour: str, shape: str, motion: str, background: str) -> scenes.Scene:
    """A scene somewhere in the picture."""
    found = scenes.arrange(rng, 1, motion)
    return replace(found, things=(scenes.Thing(colour, shape),), background=background, radius=rng.uniform(11, 13))


def draw_clips(folder: Path, drawn: list[scenes.Scene]) -> None:
    """Videos of two chunks, and their captions, each said in two ways."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file", "caption"])
        for i, one in enumerate(drawn):
            path = folder / f"{i:02d}.mp4"
            if not path.is_file():
                video.write_video(path, scenes.draw(one, FRAMES))
            table.writerows([path.name, one.caption(variant)] for variant in (0, 1))


def render(helios, asked: list[scenes.Scene]) -> list[np.ndarray]:
    """A chunk of each, from the same noise whatever the model."""
    made = []
    for i in range(0, len(asked), 24):
        for _, frames, _ in bench.render(helios, asked[i : i + 24], i, 1):
            made += frames
    return made


def judged(videos: list[np.ndarray], asked: list[scenes.Scene]) -> dict[str, float]:
    """Share of each attribute that came true, in percent; both: shape and colour; mean: of the five."""
    found = [reading.read_video(v, scenes.ALL_COLOURS, scenes.ALL_SHAPES).matches(s) for v, s in zip(videos, asked)]
    share = {name: 100 * float(np.mean([one[name] for one in found])) for name in bench.ATTRIBUTES}
    both = 100 * float(np.mean([one["shape"] and one["colour"] for one in found]))
    return {**share, "both": both, "mean": float(np.mean(list(share.values())))}


def cut(file: Path, rank: int) -> Path:
    """The file with the first `rank` singular vectors of each layer's change: smaller without another training."""
    tensors, made = load_file(file), {}
    for key in (key for key in tensors if key.endswith("lora_A.weight")):
        other = key.replace("lora_A", "lora_B")
        u, s, vh = torch.linalg.svd(tensors[other] @ tensors[key], full_matrices=False)
        made[key], made[other] = vh[:rank].contiguous(), (u[:, :rank] * s[:rank]).contiguous()
    save_file(made, short := file.with_name(f"{file.stem}_cut_{rank}.safetensors"))
    return short


def measure(helios, new: list[scenes.Scene], old: list[scenes.Scene]) -> tuple[dict, list[np.ndarray]]:
    """Figures of hearts, stars, all that is new, and what is old; the videos of the new prompts."""
    videos = render(helios, new)
    half = len(new) // 2
    figures = {"heart": judged(videos[:half], new[:half]), "star": judged(videos[half:], new[half:])}
    return figures | {"new": judged(videos, new), "old": judged(render(helios, old), old)}, videos


def table_of(results: dict) -> str:
    """A Markdown row per rank and strength."""
    head = ["rank", "strength", "new: shape and colour", "hearts", "stars", "motion", "background"]
    head += ["old: mean of five", *(f"old: {name}" for name in bench.ATTRIBUTES)]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for (rank, strength), found in results.items():
        new, old = found["new"], found["old"]
        row = [rank, strength, new["both"], found["heart"]["both"], found["star"]["both"], new["motion"]]
        row += [new["background"], old["mean"], *(old[name] for name in bench.ATTRIBUTES)]
        lines.append(" | ".join(f"{value:.0f}" if isinstance(value, float) and i > 1 else str(value)
                                for i, value in enumerate(row)))  # fmt: skip
    return "".join(f"| {line} |\n" for line in lines)


def sheet(before: list[np.ndarray], after: list[np.ndarray]) -> Image.Image:
    """Film strips: of some prompts a row, before on the left, after on the right."""
    half, rows = len(before) // 2, []
    for i in [*range(PICTURES // 2), *range(half, half + PICTURES // 2)]:
        strips = [np.concatenate(list(v[[0, 8, 16, 24, 32]]), 1) for v in (before[i], after[i])]
        gap = np.full((strips[0].shape[0], 12, 3), 255, np.uint8)
        rows.append(np.concatenate([strips[0], gap, strips[1]], 1))
    return Image.fromarray(np.concatenate(rows))


def main() -> None:
    """Draws, trains, measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", default="4,8,16")
    parser.add_argument("--cut", default="", help="ranks that the last file is cut to, and measured at")
    parser.add_argument("--threads", default="2")
    args, more = parser.parse_known_args()
    learnt, new = new_scenes()
    old = bench.held_out_scenes(PROMPTS)
    draw_clips(args.folder / "clips", learnt)
    helios = load("helios-tiny", backend="torch", compile="off")
    results, clock = {}, {}
    results["-", 0], before = measure(helios, new, old)
    for rank in map(int, args.ranks.split(",")):
        file = args.folder / f"star_and_heart_{rank}.safetensors"
        began, spent = time.perf_counter(), time.process_time()
        told = ["--data", args.folder / "clips", "--folder", args.folder / f"rank{rank}", "-o", file]
        if helios_command(["train", "lora", *map(str, told), "--rank", str(rank), "--threads", args.threads, *more]):
            raise SystemExit(1)
        clock[rank] = {"seconds": time.perf_counter() - began, "cpu seconds": time.process_time() - spent}
        for strength in STRENGTHS:
            results[rank, strength], after = measure(with_loras(helios, [(file, strength)]), new, old)
            print(rank, strength, json.dumps(results[rank, strength]), flush=True)
        sheet(before, after).save(args.folder / "sheet.png")
    for rank in map(int, filter(None, args.cut.split(","))):
        results[f"{rank}, cut", 1.0], _ = measure(with_loras(helios, [(cut(file, rank), 1.0)]), new, old)
    flat = {f"{rank} {strength}": found for (rank, strength), found in results.items()}
    (args.folder / "results.json").write_text(json.dumps({"figures": flat, "training": clock}, indent=1) + "\n")
    (args.folder / "table.md").write_text(table_of(results))
    print(table_of(results), json.dumps(clock))


if __name__ == "__main__":
    main()
