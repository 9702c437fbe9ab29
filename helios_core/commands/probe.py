"""`helios probe-vae`: how much noise the latents of a VAE bear, on the user's pictures."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from .. import load
from ..checkpoint import folders
from ..devices import BACKENDS
from ..disk import check_folder, check_name, replacing, write
from ..media import PICTURES, VIDEOS, read_frames, read_picture
from . import Terminal, set_threads
from .outputs import check_apart, check_report

TEXTS, FIGURES = ("probe.txt", "probe.csv"), ("probe.png", "heat_map.png")  # of the report
MOST_FRAMES = 257  # of a video, from its beginning: memory stays bounded
MOST_PICTURES = 64  # evenly of a folder with more


def add_options(sub: argparse.ArgumentParser) -> None:
    """The command's options."""
    sub.add_argument("pictures", nargs="+", metavar="FILE", help="pictures, videos, or folders of them")
    sub.add_argument("--model", default="helios-tiny", help="whose VAE: a checkpoint (default: helios-tiny)")
    sub.add_argument("--vae", metavar="FILE", help="a VAE of its own instead, such as wan_2.1_vae.safetensors")
    sub.add_argument("-o", "--output", default="probe-vae", metavar="FOLDER", help="report, pictures and figures")
    sub.add_argument("--probes", type=int, default=8, help="random directions; 4 times as many halve the stated error")
    sub.add_argument("--weight", type=float, default=0.1, help="of the loss whose equilibrium is told (default: 0.1)")
    sub.add_argument("--tile", type=int, default=16, metavar="LATENTS", help="smaller needs less memory (default: 16)")
    sub.add_argument("--pieces", type=int, default=4, help="of each video, up to 17 frames (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--backend", choices=BACKENDS, default="auto")
    sub.add_argument("--threads", type=int, help="CPU threads to compute with (default: torch's choice)")


def find_files(places: list[str | Path]) -> list[Path]:
    """Pictures and videos named, or lying in folders named, sorted. ValueError for what is neither, or if none is."""
    found = []
    for place in map(Path, places):
        if not place.exists():
            raise ValueError(f"there is no {place}; name pictures, videos or folders of them")
        inside = sorted(place.rglob("*")) if place.is_dir() else [place]
        known = [p for p in inside if p.suffix.lower() in PICTURES + VIDEOS]
        if not known:
            raise ValueError(f"{place} is no picture or video; wanted {', '.join(PICTURES + VIDEOS)}")
        found += known
    return found


def read_clip(file: Path) -> np.ndarray:
    """uint8 [f h w 3] of a video's beginning, or of one picture. ValueError if it cannot be read."""
    if file.suffix.lower() in VIDEOS:
        return read_frames(file, count=MOST_FRAMES)
    return read_picture(file)[None]


def probe(args: argparse.Namespace) -> int:
    """Measures, prints the table, writes the report. ValueError for bad options or files, before any work."""
    from tqdm import tqdm

    from ..measure import open_codec, probe, probe_report

    settings = probe.ProbeSettings(args.probes, args.weight, args.seed, args.tile, args.pieces)
    files = find_files(args.pictures)
    folder = check_output(args.output, args)
    if len(files) > MOST_PICTURES:
        files = [files[i] for i in np.linspace(0, len(files) - 1, MOST_PICTURES).round().astype(int)]
    set_threads(args.threads)
    helios = load(
        folders.find_checkpoint(args.model),
        vae=folders.find_file("vae", args.vae),
        backend=args.backend,
        host=Terminal(),
    )
    steps = probe.measure(open_codec(helios), [read_clip(file) for file in files], settings)
    with tqdm(unit="piece", disable=None) as bar:
        for step in steps:
            bar.total = step.total
            bar.update(step.done - bar.n)
    write_report(folder, step.findings, args.vae or args.model)
    print(probe_report.table(step.findings, args.vae or args.model))
    print(args.output)
    return 0


def check_output(output: str, args: argparse.Namespace) -> Path:
    """The folder for the report. ValueError if it takes none, or if a file of it would replace one that is read."""
    check_name(Path(output).name or "probe-vae")
    folder = check_folder(output)
    try:
        check_apart([folder / name for name in (*TEXTS, *FIGURES)], args)
    except ValueError as error:
        raise ValueError(f"{error}: choose another folder for the report") from error
    check_report(folder, (*TEXTS, *FIGURES))
    return folder


def write_report(folder: Path, found, name: str) -> None:
    """probe.txt, probe.csv, probe.png and heat_map.png, each whole or not at all."""
    from ..measure import probe_report

    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "probe.txt", probe_report.table(found, name) + "\n")
    rows = probe_report.rows(found)
    with replacing(folder / "probe.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, rows[0])
        out.writeheader()
        out.writerows(rows)
    for figure, draw in zip(FIGURES, (probe_report.picture, probe_report.heat_map), strict=True):
        with replacing(folder / figure) as part:
            draw(found).save(part, format="PNG")
