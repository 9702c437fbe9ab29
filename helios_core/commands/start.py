"""What `helios generate` starts from, an image, a video or a saved run, and the file that keeps the run."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from ..disk import Journal, replacing
from ..history import SIGMA, History, check_sigma, parse_sizes, saved
from ..join import video
from ..media import probe, read_ends, read_picture

SIZES = parse_sizes("16,2,1")


def add_options(sub: argparse.ArgumentParser) -> None:
    """The options of this module."""
    start = sub.add_mutually_exclusive_group()
    start.add_argument("--image", metavar="FILE", help="begin with this picture; " + FIT_HELP)
    start.add_argument("--video", metavar="FILE", help="go on from the end of this one, 33 frames or more; " + FIT_HELP)
    start.add_argument("--resume", metavar="FILE", help="go on with a saved run, with its size and, unless given, seed")
    sub.add_argument("--save-history", metavar="FILE", help=SAVE_HELP)
    sub.add_argument("--start-noise", metavar="MIN,MAX", help=f"mixed into --image or --video ({SIGMA_TEXT})")
    sub.add_argument("--skip-first-chunk", action="store_true", help="keep the second chunk's first frame in sight")
    sub.add_argument(
        "--no-keep-first-frame", dest="keep_first_frame", action="store_false", help="keep no first frame in sight"
    )


SAVE_HELP = (
    "keep the run in this .safetensors file after every chunk, in place of the run that it held; a file that is no "
    "saved run is not replaced"
)
SIGMA_TEXT = ",".join(map(str, SIGMA))
FIT_HELP = "another size is cropped about the centre and resized"


def settle_seed(args: argparse.Namespace) -> None:
    """--seed left open: that of the saved run, else 0."""
    if args.seed is None:
        args.seed = 0 if args.resume is None else saved.read_seed(args.resume)


def settle_rate(args: argparse.Namespace) -> None:
    """--fps left open: that of the video that is gone on with, frame by frame, else the model's own. ValueError for a
    video that cannot be read."""
    if args.fps is None:
        args.fps = video.FPS if args.video is None else float(probe(args.video).fps)


def check(args: argparse.Namespace) -> None:
    """ValueError for what needs no model to be wrong: files, and options that exclude each other."""
    given = [name for name in ("image", "video", "resume") if getattr(args, name) is not None]
    if len(given) > 1:
        raise ValueError(f"--{given[0]} and --{given[1]} exclude each other: a video starts from one thing")
    if args.resume and (args.skip_first_chunk or not args.keep_first_frame or args.start_noise):
        raise ValueError("--resume goes on with the run's own settings; leave out what says how a video starts")
    for path in (args.image, args.video):
        if path is not None and not Path(path).is_file():
            raise ValueError(f"no file at {path}")
    _sigma(args)
    if args.start_noise is not None and args.prompts_file is None and args.image is None and args.video is None:
        raise ValueError("--start-noise is mixed into --image or --video; name one of them, or leave it out")
    if args.save_history is not None:
        path = Path(args.save_history)
        if path.suffix != saved.SUFFIX or not path.parent.is_dir():
            raise ValueError(f"--save-history {path}: wanted a name that ends in {saved.SUFFIX}, in an existing folder")
        if args.prompts_file is not None:
            raise ValueError("--save-history keeps one run; leave it out with --prompts-file")
        saved.check_place(path)


def check_picture(args: argparse.Namespace) -> None:
    """Reads --image whole, so that what is wrong with it is known before a model is loaded. ValueError then."""
    if args.image is not None:
        read_picture(args.image)


def _sigma(args: argparse.Namespace) -> tuple[float, float]:
    try:
        least, most = map(float, (args.start_noise or SIGMA_TEXT).split(","))
    except ValueError:
        raise ValueError(f"--start-noise {args.start_noise!r}: wanted two numbers such as {SIGMA_TEXT}") from None
    return check_sigma((least, most))


def begin(model, args: argparse.Namespace, journal: Journal) -> History | None:
    """The history to start from; None where nothing but the prompt says how. ValueError if it does not fit."""
    if args.resume is not None:
        return _resume(model, args, journal.root / "begun.safetensors")
    plain = args.image is None and args.video is None and not args.skip_first_chunk and args.keep_first_frame
    if plain:
        return None
    defaults = model.config.defaults
    window = History.length(SIZES, args.keep_first_frame)
    blocks = -(-window // defaults.chunk_latent_frames)
    return model.history(
        args.width if args.width is not None else defaults.width,
        args.height if args.height is not None else defaults.height,
        sizes=SIZES,
        keep_first_frame=args.keep_first_frame,
        skip_first_chunk=args.skip_first_chunk,
        image=None if args.image is None else read_picture(args.image)[None],
        video=None if args.video is None else read_ends(args.video, blocks * model.config.frames_per_chunk),
        noise_sigma=_sigma(args),
        seed=args.seed,
    )


def _resume(model, args: argparse.Namespace, kept: Path) -> History:
    """kept: a copy of the saved run, which this run may be about to write anew."""
    history, _ = saved.read(kept if kept.is_file() else args.resume, model.config, model.backend.array)
    if not kept.is_file():
        with replacing(kept) as part:
            shutil.copyfile(args.resume, part)
    scale = model.config.vae.scale_factor_spatial
    for name, length, asked in zip(("height", "width"), history.shape[2:], (args.height, args.width)):
        if asked not in (None, length * scale):
            raise ValueError(f"--{name} {asked}: the run in {args.resume} has {length * scale}; leave the option out")
    return history


def keep(model, args: argparse.Namespace, history: History | None = None) -> None:
    """Saves the run where --save-history says."""
    if args.save_history is not None and history is not None:
        saved.write(args.save_history, history, seed=args.seed, config=model.config)
