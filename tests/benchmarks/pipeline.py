"""Three chunks of the Distilled pipeline from embeddings to frames, ours and diffusers', same random checkpoint.

python tests/benchmarks/pipeline.py --repeats 3
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from timing import peak_mib, race_memory, show, timed

CHUNKS, STEPS = 3, (2, 2, 2)
SHAPE = dict(heads=4, layers=4, ffn=1024, base_dim=32)


def save_checkpoint(args, folder: Path) -> None:
    """A Distilled checkpoint with random weights in the published layout, written by diffusers."""
    from diffusers import AutoencoderKLWan, HeliosDMDScheduler, HeliosTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    parts = {
        "transformer": HeliosTransformer3DModel(
            num_attention_heads=args.heads, attention_head_dim=64, rope_dim=(24, 20, 20), ffn_dim=args.ffn,
            num_layers=args.layers, text_dim=64,
        ),
        "vae": AutoencoderKLWan(base_dim=args.base_dim),
        "text_encoder": UMT5EncoderModel(
            UMT5Config(d_model=64, d_kv=16, d_ff=64, num_layers=1, num_heads=2, vocab_size=32)
        ),
        "scheduler": HeliosDMDScheduler(use_dynamic_shifting=True),
    }  # fmt: skip
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")  # embeddings are given, but it must be there
    (folder / "model_index.json").write_text('{"_class_name": "HeliosPyramidPipeline", "is_distilled": true}')


def embeddings() -> torch.Tensor:
    text = torch.randn(1, 512, 64, generator=torch.Generator().manual_seed(0))
    text[:, 40:] = 0
    return text


def open_diffusers(folder: Path, height: int, width: int):
    """Their run; the block noise gets the closed form, since diffusers' own fails on CPUs."""
    from diffusers import (
        AutoencoderKLWan,
        HeliosDMDScheduler,
        HeliosPyramidPipeline,
        HeliosTransformer3DModel,
    )
    from helios_video.helios_core.pyramid.levels import block_noise
    from transformers import UMT5EncoderModel

    parts = {
        "text_encoder": UMT5EncoderModel.from_pretrained(folder / "text_encoder"),
        "scheduler": HeliosDMDScheduler.from_pretrained(folder / "scheduler"),
    }
    for name, kind in {"transformer": HeliosTransformer3DModel, "vae": AutoencoderKLWan}.items():
        parts[name] = kind.from_config(kind.load_config(folder / name)).eval()  # from_pretrained wants accelerate
        parts[name].load_state_dict(load_file(folder / name / "diffusion_pytorch_model.safetensors"), assign=True)
    pipe = HeliosPyramidPipeline(tokenizer=None, is_distilled=True, **parts)
    pipe.sample_block_noise = lambda b, c, t, h, w, *_, **__: block_noise(torch.randn(b, c, t, h, w), 1 / 3)
    pipe.set_progress_bar_config(disable=True)
    text = embeddings()
    return lambda: pipe(
        prompt_embeds=text, height=height, width=width, num_frames=33 * CHUNKS, guidance_scale=1.0,
        pyramid_num_inference_steps_list=list(STEPS), is_amplify_first_chunk=True,
    ).frames  # fmt: skip


def open_ours(folder: Path, height: int, width: int):
    from helios_video.helios_core import load

    helios, text = load(folder), embeddings()

    def run():
        history, frames = helios.history(width, height), []
        for _ in range(CHUNKS):
            *_, last = helios.sample(history, text, seed=0, steps=STEPS)
            history = history.append(last.latent)
            frames.append(helios.decode(last.latent))
        return np.concatenate(frames)

    return run


OPEN = {"ours": open_ours, "diffusers": open_diffusers}


def measure(folder: Path, args) -> dict[str, float]:
    ours, theirs = (kind(folder, args.height, args.width) for kind in OPEN.values())
    ours(), theirs()
    rounds = np.array([[timed(ours)[0], timed(theirs)[0]] for _ in range(args.repeats)])
    a, b = np.median(rounds, axis=0)
    return {"ours s": a, "diffusers s": b, "times as fast": float(np.median(rounds[:, 1] / rounds[:, 0]))}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in dict(SHAPE, height=128, width=192, repeats=5, threads=2).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--probe", choices=OPEN, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.probe:
        print(*peak_mib(OPEN[args.probe](args.folder, args.height, args.width)))
        return
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(args, Path(folder))
        found = measure(Path(folder), args)
        options = ["--folder", folder, "--threads", str(args.threads)]
        options += ["--height", str(args.height), "--width", str(args.width)]
        show(
            f"{CHUNKS} chunks at {args.width}x{args.height}, fp32, {args.threads} threads",
            found | race_memory(__file__, *options),
        )


if __name__ == "__main__":
    main()
