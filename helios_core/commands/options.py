"""The options of `helios generate`, in the groups that its help shows, and help texts that commands share."""

from __future__ import annotations

import argparse

from ..checkpoint import WEIGHT_DTYPES
from ..config import GUIDANCE, SOLVERS
from ..devices import ATTENTION, BACKENDS, COMPILE, OFFLOAD, PRODUCTS, TILING, VAE_DTYPES
from ..join import boundary
from ..lora import MODES as LORA_MODES
from . import actors, control, live, start

GENERATE_USAGE = "helios generate --prompt TEXT [-o FILE.mp4] [options]"
GENERATE_ABOUT = (
    "A prompt becomes an MP4, in chunks of 33 frames. Brackets hold what counts where an option is left out. More of "
    "each option: web/docs/command_line.md."
)


def add_generate(sub: argparse.ArgumentParser) -> None:
    """All of them."""
    sub.usage, sub.description = GENERATE_USAGE, GENERATE_ABOUT
    _add_content(sub.add_argument_group("what the video shows (one of the first four is needed)"))
    _add_length(sub.add_argument_group("length, size and seed"))
    _add_output(sub.add_argument_group("where it is written"))
    start.add_options(sub.add_argument_group("what it starts from, and going on another day"))
    _add_model(sub.add_argument_group("the model"))
    control.add_options(sub.add_argument_group("control: a second video that says what is where"))
    _add_sampling(sub.add_argument_group("sampling"))
    _add_joints(sub.add_argument_group("long videos: drift, and where chunks meet"))
    _add_machine(sub.add_argument_group("the machine and its memory"))


def _add_content(group: argparse._ArgumentGroup) -> None:
    what = group.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", metavar="TEXT", help="what the video shows")
    what.add_argument("--prompts-at", metavar="SCHEDULE", help=SCHEDULE_HELP)
    what.add_argument("--timeline", metavar="FILE", help=TIMELINE_HELP)
    what.add_argument("--prompts-file", metavar="FILE", help=FILE_HELP)
    group.add_argument("--negative", metavar="TEXT", help="what it should not show; counts where guidance is above 1")


def _add_length(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--frames", type=int, metavar="N", default=132, help=FRAMES_HELP)
    group.add_argument("--length", choices=["exact", "published"], default="exact", help=LENGTH_HELP)
    group.add_argument("--fps", type=float, metavar="X", help="frames per second (24; with --video, the video's)")
    group.add_argument(
        "--width",
        type=int,
        metavar="PIXELS",
        help="of a frame (the checkpoint's own: 640 of the 14B model, 64 of helios-tiny)",
    )
    group.add_argument("--height", type=int, metavar="PIXELS", help="of a frame (the checkpoint's own: 384, and 64)")
    group.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same video (0)")


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("-o", "--output", default="helios.mp4", metavar="MP4", help=OUTPUT_HELP)
    group.add_argument("--overwrite", action="store_true", help=OVERWRITE_HELP)
    group.add_argument("--live", type=int, nargs="?", const=live.PORT, metavar="PORT", help=live.HELP)


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", default="helios-tiny", metavar="NAME", help=MODEL_HELP)
    group.add_argument("--text-encoder", metavar="FILE", help=TEXT_ENCODER_HELP)
    group.add_argument("--vae", metavar="FILE", help="the same for the VAE, such as wan_2.1_vae.safetensors")
    group.add_argument("--lora", action="append", default=[], metavar="FILE[:STRENGTH[@BLOCKS]]", help=LORA_HELP)
    group.add_argument("--lora-mode", choices=LORA_MODES, default="auto", help=LORA_MODE_HELP)
    group.add_argument("--lora-companion", metavar="FILE", help="the transformer_partial.pth of an official training")


def _add_sampling(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--steps", metavar="N,N,N", help="per pyramid stage, such as 2,2,2 (the checkpoint's own)")
    group.add_argument("--cfg", type=float, metavar="X", default=0.0, help=CFG_HELP)
    group.add_argument("--solver", choices=["auto", *SOLVERS], default="auto", help=SOLVER_HELP)
    group.add_argument("--guidance", choices=["auto", *GUIDANCE], default="auto", help=GUIDANCE_HELP)
    group.add_argument("--zero-steps", type=int, metavar="N", help="cfg_zero_star: first steps that are skipped (2)")
    group.add_argument("--shift-tokens", choices=["before", "after"], default="before", help=SHIFT_HELP)
    group.add_argument("--shift-clamp", action="store_true", help="bound the exponential shift at 7, as in training")


def _add_joints(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--anti-drift", metavar="POLICY[:STRENGTH]", help=DRIFT_HELP)
    group.add_argument("--boundary", choices=boundary.POLICIES, default="none", help=BOUNDARY_HELP)
    group.add_argument("--boundary-frames", type=int, default=boundary.FRAMES, metavar="N", help=BOUNDARY_FRAMES_HELP)
    group.add_argument(
        "--drop-first-frame", action="store_true", help="of every chunk but the first: 32 frames, not 33"
    )


def _add_machine(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--backend", choices=BACKENDS, default="auto", help=BACKEND_HELP)
    group.add_argument("--threads", type=int, metavar="N", help=THREADS_HELP)
    group.add_argument("--gpus", type=int, metavar="N", help=GPUS_HELP)
    group.add_argument("--split-guidance", action="store_true", help=HALVES_HELP)
    group.add_argument("--shard", action="store_true", help=SHARD_HELP)
    actors.add_options(group, "the videos of --prompts-file")
    group.add_argument("--weight-dtype", choices=WEIGHT_DTYPES, default="auto", help=WEIGHT_DTYPE_HELP)
    group.add_argument("--offload", choices=OFFLOAD, default="auto", help=OFFLOAD_HELP)
    group.add_argument("--vae-dtype", choices=VAE_DTYPES, default="auto", help=VAE_DTYPE_HELP)
    group.add_argument("--vae-tiling", choices=TILING, default="auto", help=TILING_HELP)
    group.add_argument("--attention", choices=ATTENTION, default="auto", help=ATTENTION_HELP)
    group.add_argument("--products", choices=PRODUCTS, default="auto", help=PRODUCTS_HELP)
    group.add_argument("--compile", choices=COMPILE, default="auto", help=COMPILE_HELP)
    group.add_argument("--no-prompt-cache", action="store_true", help=CACHE_HELP)
    group.add_argument("--no-weights-cache", action="store_true", help=WEIGHTS_CACHE_HELP)


MODEL_HELP = (
    "a checkpoint's folder or file, or the name of one that `helios doctor` lists (helios-tiny, which is built in)"
)
TEXT_ENCODER_HELP = (
    "take the text encoder from this file (its name in models/text_encoders will do) or checkpoint folder; a model "
    "file without one needs it"
)
FRAMES_HELP = "how long it is; a chunk has 33, and at 24 a second 132 are 5.5 seconds (%(default)s)"
OVERWRITE_HELP = "replace --output if it is there already; with --prompts-file: make finished videos again"
OUTPUT_HELP = "file to write; if it is there already, the next free name, such as helios_2.mp4 (%(default)s)"
CFG_HELP = "guidance: how closely it keeps to the prompt; above 1 takes twice as long; 1 is none (0, the checkpoint's)"
SOLVER_HELP = "how steps follow the model: dmd for distilled checkpoints, unipc or euler for the others (auto)"
GUIDANCE_HELP = "how --cfg is done: plainly, or as CFG-Zero*, which Mid has (auto)"
THREADS_HELP = "CPU threads to compute with (torch's choice)"
BACKEND_HELP = "what computes; auto: mlx on Apple silicon where it is installed, torch elsewhere (auto)"
GPUS_HELP = "compute one video on so many GPUs of this machine, which must divide the model's heads: 2, 4, 8 (1)"
HALVES_HELP = "with --gpus and --cfg above 1: each half of the GPUs computes one of the two passes; less is exchanged"
SHARD_HELP = "with --gpus: each holds a part of the weights, and blocks are gathered as they are needed; saves memory"
WEIGHT_DTYPE_HELP = (
    "number format of the transformer. auto: as stored, but fp32 as bf16 where the GPU is fast at that. fp8_e4m3fn, "
    "int8 and int4 quantise as it loads, _g32 to _g128 with so many columns to a factor (auto)"
)
OFFLOAD_HELP = (
    "none: all stays on the device; blocks: as many of the transformer's blocks as fit do, the others stream from host "
    "memory; sequential: one part at a time; auto: the first of these that fits (auto)"
)
VAE_DTYPE_HELP = (
    "bf16 halves the memory that decoding takes, and on a GPU its time; auto: bf16 on CUDA, fp32 elsewhere "
    "(%(default)s)"
)
TILING_HELP = "decode in tiles, which takes less memory but is not quite the same; auto: where it must be (auto)"
ATTENTION_HELP = (
    "what computes the transformer's attention, with torch: its own choice (sdpa), one of its kernels, or flash3 and "
    "sage where their packages are installed; auto: cudnn on Hopper, sdpa elsewhere (auto)"
)
PRODUCTS_HELP = (
    "of quantised weights, with torch: widened to bf16, or scaled: fp8 and int8 multiplied as they are, activations "
    "rounded to eight bits; auto: scaled for fp8 on GPUs that multiply it, widened elsewhere (auto)"
)
COMPILE_HELP = (
    "have torch compile the transformer's blocks, a minute at the first step; auto: on GPUs of NVIDIA's where there is "
    "a compiler (auto)"
)
WEIGHTS_CACHE_HELP = "keep no weights on disk that were quantised on load; so does HELIOS_WEIGHTS_CACHE=off"
CACHE_HELP = "keep no prompt embeddings on disk; HELIOS_CACHE names the folder, or is off"
SCHEDULE_HELP = (
    "prompts from given chunks on, counted from 0: '0: a red circle; 4 (2): a blue square' blends over 2 chunks"
)
TIMELINE_HELP = (
    "a score: a text like --prompts-at in a file, whose entries may also set seed, guidance, anti-drift strength, a "
    "picture beside the file, cuts and the end: '4 [seed 7, cfg 3, image cat.png 0.4, cut]: a blue square'"
)
FILE_HELP = (
    "several videos with one load: a text file, a prompt per line, or a .csv with the header prompt and, if wanted, "
    "negative, seed, frames, output, image; the others are numbered after --output. Finished ones are left alone"
)
LENGTH_HELP = "exact: --frames; published: what the published pipelines make of it, 65 for 34 (%(default)s)"
SHIFT_HELP = "lay out a stage's steps by the size before or after its upsample (%(default)s)"
DRIFT_HELP = (
    "correct what the model remembers of a chunk whose colours or contrast drift: off (tells only), corrupt, "
    "renormalise or anchor, such as anchor:0.5; the video itself stays as sampled"
)
BOUNDARY_HELP = (
    "where chunks meet. none: nothing; match: draw brightness and contrast to the frame before, over a few frames, "
    "where they jump; crossfade: blend with that frame, which blurs what moves. Scene cuts stay (%(default)s)"
)
BOUNDARY_FRAMES_HELP = "how many frames of a chunk --boundary may change (%(default)s)"
LORA_HELP = (
    "a LoRA of Helios or Wan 2.1 14B: a file, or its name in models/loras; strength 1 if left out; BLOCKS: factors of "
    "blocks, such as 0-9=0.5,10-19=0,other=1 (other: outside of blocks; rest: not named). Repeatable"
)
LORA_MODE_HELP = "apply: beside the weights; merge: into copies of them; auto: apply (%(default)s)"
