"""Times and peak memory of the Wan VAE's decode, ours and diffusers', on the CPU.

Both run interleaved in one process with the same random weights; medians are reported, and the median of the ratios of
neighbouring runs, which is what counts on a busy machine. The ceiling is the speed of a large matrix product, measured
between the runs. Peak memory is that of a fresh process each, next to what it held before decoding (Linux only).

    python tests/benchmarks/vae.py
    python tests/benchmarks/vae.py --error
    python tests/benchmarks/vae.py --size 96 9 12 20 --dtype fp32 --repeats 3
"""

from __future__ import annotations

import argparse
import copy
import math

import torch
from timing import DTYPES, peak_mib, race, race_memory, show
from torch.utils.flop_counter import FlopCounterMode

SIZES = [(12, 9, 8, 8), (32, 9, 12, 20), (96, 9, 12, 20)]  # base_dim, then the latent's t, h, w


def build_ours(base_dim: int, dtype: torch.dtype):
    from helios_video.helios_core.backends.torch import channels_last
    from helios_video.helios_core.backends.torch.vae import WanVAE
    from helios_video.helios_core.config.model import VAEConfig

    vae = WanVAE(VAEConfig(base_dim=base_dim)).eval().to(dtype)
    return channels_last.lay_out(vae) if dtype == torch.bfloat16 else vae  # as it is loaded


def build_theirs(base_dim: int, dtype: torch.dtype):
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(base_dim=base_dim).eval().to(dtype)


def latents(size: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(1, 16, *size[1:], generator=torch.Generator().manual_seed(0)).to(dtype)


def measure_speed(size: tuple[int, ...], name: str, repeats: int) -> dict[str, float]:
    dtype = DTYPES[name]
    theirs, ours = build_theirs(size[0], dtype), build_ours(size[0], dtype)
    ours.load_state_dict(theirs.state_dict())
    z = latents(size, dtype)
    with FlopCounterMode(display=False) as counter:
        theirs.decode(z)
    gflop = counter.get_total_flops() / 1e9  # of diffusers' multiplications, which ours need not do
    return race(lambda: ours.decode(z), lambda: theirs.decode(z).sample, dtype, repeats, gflop)


def probe(which: str, size: tuple[int, ...], name: str) -> None:
    model = (build_ours if which == "ours" else build_theirs)(size[0], DTYPES[name])
    z = latents(size, DTYPES[name])
    print(*peak_mib(lambda: model.decode(z)))


def gaussian(base_dim: int):
    """A VAE of random weights that keep the size of what they are given."""
    torch.manual_seed(0)
    vae = build_ours(base_dim, torch.float32).requires_grad_(False)
    for name, p in vae.named_parameters():
        if "gamma" not in name:
            p.normal_(0, p[0].numel() ** -0.5 if p.ndim > 1 else 0.02)
    vae.decoder.conv_out.weight.mul_(0.25)  # frames within [-1, 1] for the most part
    return vae


def tiny():
    """helios-tiny's VAE, the latents of a chunk of its own, and the frames of that."""
    from helios_video.helios_core import load

    helios = load(cache_folder=None)
    *_, step = helios.sample(helios.history(128, 128), helios.text("a red circle moving left"), seed=1)
    frames = torch.from_numpy(helios.decode(step.latent)).float().permute(3, 0, 1, 2)[None] / 127.5 - 1
    return helios.parts.vae, helios.denormalise(step.latent), frames


def measure_error(vae, z, frames) -> dict[str, float]:
    """bf16 beside fp32. of the frames in dB and in levels of 255; of the latents relative to their spread."""
    half, levels = copy.deepcopy(vae).bfloat16(), lambda x: ((x + 1) * 127.5).round()
    exact, rounded = vae.decode(z), half.decode(z.bfloat16()).float()
    apart = (levels(exact) - levels(rounded)).abs()
    mean, mean_half = vae.encode(frames)[0], half.encode(frames.bfloat16())[0].float()
    return {
        "frames, dB": 10 * math.log10(4 / (exact - rounded).double().square().mean().item()),
        "frames, levels on average": apart.mean().item(),
        "frames, levels at most": apart.max().item(),
        "latents": ((mean - mean_half).square().mean().sqrt() / mean.std()).item(),
    }


def show_errors() -> None:
    """Of helios-tiny's VAE, and of one of Wan 2.1's size."""
    random = gaussian(96), torch.randn(1, 16, 3, 8, 8), torch.randn(1, 3, 9, 64, 64).clamp(-1, 1)
    for name, given in (("helios-tiny", tiny()), ("base_dim 96, random weights", random)):
        print(f"{name}, bf16 beside fp32")
        for title, value in measure_error(*given).items():
            print(f"  {title:28}{value:.4f}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=4, action="append", metavar=("BASE_DIM", "T", "H", "W"))
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--error", action="store_true", help="what bf16 changes, instead of times")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--probe", choices=["ours", "diffusers"], help=argparse.SUPPRESS)
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    args = arguments()
    torch.set_num_threads(args.threads)
    if args.error:
        return show_errors()
    cases = [(tuple(size), name) for size in args.size or SIZES for name in args.dtype or DTYPES]
    for size, name in cases:
        if args.probe:
            probe(args.probe, size, name)
            continue
        found = {} if args.no_speed else measure_speed(size, name, args.repeats)
        options = ["--threads", str(args.threads), "--dtype", name, "--size", *map(str, size)]
        found |= {} if args.no_memory else race_memory(__file__, *options)
        show(f"base_dim {size[0]}, latent {size[1]}x{size[2]}x{size[3]}, {name}, {args.threads} threads", found)


if __name__ == "__main__":
    main()
