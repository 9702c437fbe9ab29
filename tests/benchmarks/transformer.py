"""Time and peak memory of one transformer forward, ours and diffusers', on the CPU, with the same random weights.

python tests/benchmarks/transformer.py
python tests/benchmarks/transformer.py --size 65m --dtype bf16 --repeats 5
"""

from __future__ import annotations

import argparse

import torch
from timing import DTYPES, peak_mib, race, race_memory, show
from torch.utils.flop_counter import FlopCounterMode

M65 = dict(num_attention_heads=12, attention_head_dim=64, rope_dim=(24, 20, 20), ffn_dim=3072, num_layers=6)
M65 |= dict(text_dim=512)
TINY = dict(num_attention_heads=4, attention_head_dim=40, rope_dim=(16, 12, 12), ffn_dim=640, num_layers=4)
TINY |= dict(text_dim=64, freq_dim=128)
# transformer, history's height and width, current chunk's height and width, in latent pixels
SIZES = {"65m": (M65, (24, 40), (24, 40)), "tiny": (TINY, (8, 8), (8, 8)), "tiny-coarse": (TINY, (8, 8), (2, 2))}
PARTS = ("short", "mid", "long")


def build_ours(size: str, dtype: torch.dtype) -> tuple:
    """(our model with random weights, what runs a model of that kind once); what is cached per chunk is not timed."""
    from helios_video.helios_core.backends.torch.transformer import FLOAT32, HeliosTransformer
    from helios_video.helios_core.config.model import TransformerConfig
    from helios_video.helios_core.history.window import History

    torch.manual_seed(0)
    config, full, current = SIZES[size]
    model = HeliosTransformer(TransformerConfig(**config)).eval().requires_grad_(False)
    for name, p in model.named_parameters():
        p.data = p.data if any(part in name for part in FLOAT32) else p.data.to(dtype)
    parts = History(torch.randn(1, 16, 19, *full), torch.randn(1, 16, 1, *full)).parts(9)
    x, text = torch.randn(1, 16, 9, *current), torch.randn(1, 512, config["text_dim"])
    text[:, 40:] = 0
    contexts = model.fuse().text_context(text), model.history_context(parts)
    return model, lambda model: model.velocity(x, 711.0, *contexts)


def build(size: str, dtype: torch.dtype, which: str = "both") -> tuple:
    """(our forward or None, theirs or None): the same weights and inputs; what is cached per chunk is not timed."""
    from diffusers import HeliosTransformer3DModel
    from helios_video.helios_core.backends.torch.transformer import FLOAT32, HeliosTransformer
    from helios_video.helios_core.config.model import TransformerConfig
    from helios_video.helios_core.history.window import History

    torch.manual_seed(0)
    config, full, current = SIZES[size]
    reference = HeliosTransformer3DModel(**config).eval()
    weights = {k: v if any(part in k for part in FLOAT32) else v.to(dtype) for k, v in reference.state_dict().items()}
    parts = History(torch.randn(1, 16, 19, *full), torch.randn(1, 16, 1, *full)).parts(9)
    x, text = torch.randn(1, 16, 9, *current), torch.randn(1, 512, config["text_dim"])
    text[:, 40:] = 0
    ours = theirs = None
    if which != "diffusers":
        model = HeliosTransformer(TransformerConfig(**config)).eval()
        model.load_state_dict(weights, assign=True)
        model.fuse()
        contexts = model.text_context(text), model.history_context(parts)
        ours = lambda: model.velocity(x, 711.0, *contexts)  # noqa: E731
    if which != "ours":
        reference.load_state_dict(weights, assign=True)
        index = {f"indices_latents_history_{n}": torch.tensor(getattr(parts, f"{n}_index"))[None] for n in PARTS}
        index["indices_hidden_states"] = torch.tensor(parts.current_index)[None]
        latents = {f"latents_history_{n}": getattr(parts, n).to(dtype) for n in PARTS}
        theirs = lambda: reference(  # noqa: E731
            x.to(dtype), torch.tensor([711]), text.to(dtype), **index, **latents, return_dict=False
        )[0]
    return ours, theirs


def measure(size: str, name: str, repeats: int, threads: int) -> dict[str, float]:
    ours, theirs = build(size, DTYPES[name])
    with FlopCounterMode(display=False) as counter:
        theirs()
    found = race(ours, theirs, DTYPES[name], repeats, counter.get_total_flops() / 1e9)
    return found | race_memory(__file__, "--threads", str(threads), "--size", size, "--dtype", name)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, action="append")
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--probe", choices=["ours", "diffusers"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for size in args.size or SIZES:
        for name in args.dtype or DTYPES:
            if args.probe:
                run = next(filter(None, build(size, DTYPES[name], args.probe)))
                print(*peak_mib(run))
            else:
                repeats = args.repeats if size == "65m" else 10 * args.repeats
                show(f"{size}, {name}, {args.threads} threads", measure(size, name, repeats, args.threads))


if __name__ == "__main__":
    main()
