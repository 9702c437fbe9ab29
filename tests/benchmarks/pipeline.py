"""Three chunks of the Distilled pipeline from embeddings to frames, ours and diffusers', same random checkpoint.

python tests/benchmarks/pipeline.py --repeats 3
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from timing import show, timed

CHUNKS, STEPS = 3, (2, 2, 2)


def build_reference(args):
    """diffusers' pipeline with random weights; its block noise gets the closed form, since its own fails on CPUs."""
    from diffusers import (
        AutoencoderKLWan,
        HeliosDMDScheduler,
        HeliosPyramidPipeline,
        HeliosTransformer3DModel,
    )
    from helios_video.helios_core.pyramid import block_noise
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    transformer = HeliosTransformer3DModel(
        num_attention_heads=args.heads, attention_head_dim=64, rope_dim=(24, 20, 20), ffn_dim=args.ffn,
        num_layers=args.layers, text_dim=64,
    )  # fmt: skip
    words = UMT5EncoderModel(UMT5Config(d_model=64, d_kv=16, d_ff=64, num_layers=1, num_heads=2, vocab_size=32))
    pipe = HeliosPyramidPipeline(
        tokenizer=None, text_encoder=words, vae=AutoencoderKLWan(base_dim=args.base_dim), transformer=transformer,
        scheduler=HeliosDMDScheduler(use_dynamic_shifting=True), is_distilled=True,
    )  # fmt: skip

    def sample_block_noise(b, c, t, h, w, patch_size=(1, 2, 2), device=None, generator=None):
        return block_noise(torch.randn(b, c, t, h, w), 1 / 3)

    pipe.sample_block_noise = sample_block_noise
    pipe.set_progress_bar_config(disable=True)
    return pipe


def open_ours(pipe, folder: Path):
    """The same checkpoint through our loader."""
    from helios_video.helios_core import load

    pipe.tokenizer = None
    pipe.transformer.save_pretrained(folder / "transformer")
    pipe.vae.save_pretrained(folder / "vae")
    pipe.text_encoder.save_pretrained(folder / "text_encoder")
    pipe.scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text('{"_class_name": "HeliosPyramidPipeline", "is_distilled": true}')
    return load(folder)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in dict(heads=4, layers=4, ffn=1024, base_dim=32, pixels=128, repeats=3, threads=2).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pipe = build_reference(args)
    text = torch.randn(1, 512, 64)
    text[:, 40:] = 0
    with tempfile.TemporaryDirectory() as folder:
        helios = open_ours(pipe, Path(folder))

        def ours():
            history, frames = helios.history(args.pixels, args.pixels), []
            for _ in range(CHUNKS):
                *_, last = helios.sample(history, text, seed=0, steps=STEPS)
                history = history.append(last.latent)
                frames.append(helios.decode(last.latent))
            return np.concatenate(frames)

        def theirs():
            return pipe(
                prompt_embeds=text, height=args.pixels, width=args.pixels, num_frames=33 * CHUNKS, guidance_scale=1.0,
                pyramid_num_inference_steps_list=list(STEPS), is_amplify_first_chunk=True,
            ).frames  # fmt: skip

        ours(), theirs()
        rounds = np.array([[timed(ours)[0], timed(theirs)[0]] for _ in range(args.repeats)])
    a, b = np.median(rounds, axis=0)
    ratio = float(np.median(rounds[:, 1] / rounds[:, 0]))
    show(
        f"{CHUNKS} chunks at {args.pixels}x{args.pixels}, fp32", {"ours s": a, "diffusers s": b, "times as fast": ratio}
    )


if __name__ == "__main__":
    main()
