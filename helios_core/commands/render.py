"""One video from arguments to a file: what `helios generate` does once, and `--prompts-file` for every row."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from tqdm import tqdm

from .. import load
from ..checkpoint import SAFETENSORS, find_checkpoint, find_file, list_files
from ..config import check_number, check_size, check_whole, limits
from ..disk import Journal, free_name
from ..disk.journal import mark
from ..history import parse_policy
from ..join import FRAMES, Behind, Boundary, Clip, append_kept, check_encoder, frame_rate, join, published_length
from ..lora import check_strength, parse_blocks
from ..steps import parse_steps
from ..text import PromptSchedule, check_text
from ..with_loras import with_loras
from . import HOST, Terminal, control, set_threads, start
from .going_on import depends_on, going_on, settings_of, through
from .live import Broadcast, live
from .progress import Left, timed


def check(args: argparse.Namespace) -> None:
    """ValueError for what needs no model to be wrong."""
    check_whole("--frames", args.frames, limits.FRAMES)
    for name in ("width", "height"):
        if getattr(args, name) is not None:
            check_whole(f"--{name}", getattr(args, name), limits.SIDE)
    check_number("--cfg", args.cfg, limits.SCALE)
    check_whole("--boundary-frames", args.boundary_frames, 10_000)
    check_text(args.negative or "", "--negative")
    if args.fps is not None:
        frame_rate(args.fps)
    if args.anti_drift is not None:
        parse_policy(args.anti_drift)
    boundary_of(args)
    if args.boundary == "none" and args.boundary_frames != FRAMES:
        raise ValueError("--boundary-frames says how far --boundary reaches; choose one, such as --boundary match")
    if args.lora_mode != "auto" and not args.lora and args.lora_companion is None:
        raise ValueError(f"--lora-mode {args.lora_mode} says how a --lora goes in; name one, or leave the mode out")
    check_encoder()
    start.check(args)
    control.check(args)


def boundary_of(args: argparse.Namespace) -> Boundary:
    """How the chunks of these options are joined. ValueError for what cannot be."""
    return Boundary(args.boundary, args.boundary_frames, args.drop_first_frame)


def open_model(args: argparse.Namespace):
    """The pipeline that the arguments name, once for any number of videos."""
    set_threads(args.threads, args.backend)
    named = ("backend", "weight_dtype", "offload", "vae_dtype", "vae_tiling", "attention", "products", "compile")
    choices = {name: getattr(args, name) for name in named}
    parts = {"text_encoder": find_file("text_encoders", args.text_encoder), "vae": find_file("vae", args.vae)}
    if args.no_prompt_cache:
        choices["cache_folder"] = None
    if args.no_weights_cache:
        choices["weights_folder"] = None
    host = HOST.get() or Terminal()
    model = load(find_checkpoint(args.model), **parts, **choices, host=host)
    host.opened(model.config)
    return control.add_control(add_loras(model, args), args)


def add_loras(model, args: argparse.Namespace):
    """The model with the LoRAs that were asked for; says on stderr what they change."""
    if not args.lora and args.lora_companion is None:
        return model
    known = list_files("loras", SAFETENSORS)
    named = [split_strength(text, known) for text in args.lora]
    files = [(known.get(name) or find_file("loras", name), *how) for name, *how in named]
    model = with_loras(model, files, mode=args.lora_mode, companion=args.lora_companion)
    print(model.parts.loras.report, file=sys.stderr)
    return model


def split_strength(text: str, known=()) -> tuple[str, float, str]:
    """FILE[:STRENGTH[@BLOCKS]] into its parts. Files may have colons of their own, as Windows drives do.

    known: names of files. BLOCKS: as `parse_blocks` takes them. ValueError where the strength is no number.
    """
    head, colon, tail = text.rpartition(":")
    if not colon or not head or text in known or Path(text).exists():
        return text, 1.0, ""
    number, _, blocks = tail.partition("@")
    try:
        strength = check_strength(float(number))
    except ValueError:
        if any(c in tail for c in "/\\") or tail.endswith(".safetensors"):
            return text, 1.0, ""
        raise ValueError(f"--lora {text!r}: {WANTED}") from None
    parse_blocks(blocks)
    return head, strength, blocks


WANTED = "wanted FILE or FILE:STRENGTH or FILE:STRENGTH@BLOCKS, such as style.safetensors:0.8@0-9=0.5,10-=1"


def announce(model, args: argparse.Namespace) -> None:
    """What the video needs of memory, on stderr, before anything loads. ValueError for a size that cannot be."""
    own = model.config.defaults
    check_size(args.width or own.width, args.height or own.height, model.config.spatial_multiple)
    for line in model.parts.needs(args.width or 0, args.height or 0):
        print(line, file=sys.stderr)


@timed
def render(
    model, prompt: str | PromptSchedule, args: argparse.Namespace, announced: bool = False, picture=None, show=None
) -> Path:
    """One video, from prompt to file: --output, or the next free name. Goes on where the same run was stopped.

    show(events, chunks): the same events, which it shows; `with_bars` if left open.
    """
    settings = _settings(args, model.config)
    if not announced:
        announce(model, args)
    wanted = depends_on(args, model)
    if (done := through(args.output)) is not None and done.settings == wanted:
        return done.video
    with live(args.live, args.fps) as shown_live, going_on(args, wanted) as journal:
        history = start.begin(model, args, journal)
        begun = {} if history is None else {"history": history}
        made = model.generate(prompt, picture=picture, store=journal, **settings, **begun)
        first = 0 if history is None else history.chunk
        chunks = settings["chunks"] + first
        chunks = min(chunks, getattr(prompt, "end", None) or chunks)
        control.tell_idle(model, first, chunks)
        with closing((show or with_bars)(report_drift(made), chunks)) as shown:
            save = partial(start.keep, model, args)
            return _write(shown, journal, args, model.config.frames_per_chunk, save, first, shown_live)


def _settings(args: argparse.Namespace, config) -> dict:
    """Keyword arguments of `Helios.generate`; what the user left open comes from the checkpoint."""
    defaults = config.defaults
    return {
        "negative": args.negative,
        "width": args.width if args.width is not None else defaults.width,
        "height": args.height if args.height is not None else defaults.height,
        "chunks": boundary_of(args).chunks(args.frames, config.frames_per_chunk),
        "seed": args.seed,
        "steps": parse_steps(args.steps, len(defaults.steps)) if args.steps is not None else None,
        "cfg": args.cfg,
        "solver": args.solver,
        "guidance": args.guidance,
        "zero_steps": args.zero_steps,
        "shift_tokens": f"{args.shift_tokens} upsample",
        "shift_clamp": args.shift_clamp,
        **({} if args.anti_drift is None else {"drift": parse_policy(args.anti_drift)}),
    }


def _write(
    events: Iterable,
    journal: Journal,
    args: argparse.Namespace,
    per_chunk: int,
    save: Callable,
    first: int,
    broadcast: Broadcast | None,
) -> Path:
    """Chunks to files in the run's folder, then one file; what is finished stays whatever stops the run.

    first: the number of its first chunk, above 0 where a saved run is gone on with. broadcast: who else is shown them.
    """
    clip = _grow(events, Behind(Clip.new(journal.root, args.fps)), journal, boundary_of(args), save, broadcast)
    if not clip.segments:
        raise ValueError("the model gave no chunk")
    length = published_length(args.frames, per_chunk) if args.length == "published" else args.frames
    out = Path(args.output) if args.overwrite else free_name(Path(args.output))
    about = {"helios": {**settings_of(args), "first_chunk": first, "run": mark(journal.settings)}}
    join(clip, out, about, num_frames=min(length, clip.num_frames), overwrite=args.overwrite)
    if broadcast is not None:
        broadcast.linger()  # the parts lie in the journal's folder, which goes
    journal.finish()
    return out


def _grow(
    events: Iterable, clips: Behind, journal: Journal, boundary: Boundary, save: Callable, broadcast: Broadcast | None
) -> Clip:
    """The clip of all chunks. save(history): of each once its file is finished, so that it never runs ahead of it."""
    due = []  # of the chunk on its way
    try:
        with clips:
            for event in filter(is_chunk, events):
                keep = partial(append_kept, boundary=boundary, made_of=event.made_of, store=journal)
                clips.append(event.frames, keep if broadcast is None else broadcast.growing(keep))
                save(*due)
                due = [getattr(event, "history", None)]
                count = len(clips.clip.segments) + 1
    finally:
        if due and len(clips.clip.segments) == count:
            save(*due)
    return clips.clip


def is_chunk(event) -> bool:
    """A pipeline's events are the sampler's steps, and finished chunks, which have frames."""
    return hasattr(event, "frames")


def report_drift(events: Iterable) -> Iterator:
    """The same events; what a drift policy found is told on stderr, above the progress bar."""
    for event in events:
        if found := getattr(event, "drift", ""):
            tqdm.write(found, file=sys.stderr)
        yield event


def with_bars(events: Iterable, chunks: int) -> Iterator:
    """The same events, with one progress bar per chunk on stderr: its steps, then its frames while they are decoded.

    chunks: of the whole video, those of a run that is gone on with among them.
    """
    bar, left = None, Left(chunks)
    try:
        for event in events:
            if not is_chunk(event):
                bar = bar or tqdm(total=event.total, desc=left.of(event.chunk), unit="step")
                bar.update(event.index + 1 - bar.n)
            elif bar is not None:  # else it was sampled before the run was stopped
                bar.set_postfix_str("decoding")
            yield event
            if is_chunk(event) and bar is not None:
                bar.set_postfix_str("")
                bar.close()
                bar = None
    finally:  # so that a message gets a line of its own
        if bar is not None:
            bar.close()
