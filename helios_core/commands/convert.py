"""`helios convert`: a checkpoint from one layout into another, quantised if asked for."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from ..checkpoint import KINDS, PARTS, TINY, find_checkpoint, find_file
from ..convert import FORMATS, GGUF_KINDS, NO_QUANTISER, convert
from ..disk import check_name
from ..pipeline import TINY as BUILT_IN

FORMAT_HELP = (
    "folder: the published layout; single: one file; comfy: a folder of ComfyUI's diffusion_models, vae and "
    "text_encoders; gguf: the same with GGUF files, or one GGUF file of one part (default: single for a name in "
    ".safetensors, gguf for one in .gguf, else folder)"
)
QUANTIZE_HELP = (
    f"keep the transformer's large layers in fewer bits: {', '.join(KINDS)}; or, in the format gguf, both networks' in "
    f"{', '.join(GGUF_KINDS)}"
)


def add_options(sub: argparse.ArgumentParser) -> None:
    """The command line of `helios convert`."""
    sub.add_argument("source", metavar="IN", help="a checkpoint's folder or file, or a name that `helios doctor` lists")
    sub.add_argument(
        "target", metavar="OUT", help="a new folder, or a new file whose name ends in .safetensors or .gguf"
    )
    sub.add_argument("--format", choices=FORMATS, default="", help=FORMAT_HELP)
    sub.add_argument("--quantize", choices=[*KINDS, *GGUF_KINDS, *NO_QUANTISER], metavar="TYPE", help=QUANTIZE_HELP)
    sub.add_argument("--parts", help=f"some of {','.join(PARTS)} (default: all that IN holds)")
    sub.add_argument("--text-encoder", metavar="FILE", help="take the text encoder from this file or checkpoint folder")
    sub.add_argument("--vae", metavar="FILE", help="take the VAE from this file or checkpoint folder")


def run(args: argparse.Namespace) -> int:
    """Prints the weights files written on stdout."""
    check_name(Path(args.target).name)
    source = find_checkpoint(args.source)
    with Bar() as bar:
        files = convert(
            BUILT_IN if source == TINY else source,
            args.target,
            form=args.format,
            kind=args.quantize,
            parts=parse_parts(args.parts),
            text_encoder=find_file("text_encoders", args.text_encoder),
            vae=find_file("vae", args.vae),
            progress=bar.show,
        )
    for file in files:
        print(file)
    return 0


class Bar(ExitStack):
    """A progress bar in bytes that appears with the first of them: arguments are checked before."""

    bar = None

    def show(self, done: int, total: int) -> None:
        """So many bytes are done."""
        if self.bar is None:
            made = tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc="converting")
            self.bar = self.enter_context(made)
        self.bar.update(done - self.bar.n)


def parse_parts(text: str | None) -> list[str] | None:
    """ "transformer,vae" -> the parts in their order. ValueError for what is none."""
    if text is None:
        return None
    named = [part.strip() for part in text.split(",")]
    wrong = [part for part in named if part not in PARTS]
    if wrong:
        raise ValueError(f"--parts {text}: {', '.join(map(repr, wrong))} is none of {', '.join(PARTS)}")
    return [part for part in PARTS if part in named]
