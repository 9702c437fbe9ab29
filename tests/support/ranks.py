"""Processes that compute together over gloo, for tests: what each found, saved for the test that started them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from helios_video.helios_core.backends.torch import bands, leading, offload, parallel, quant, shards
from helios_video.helios_core.backends.torch.transformer import SAMPLED, HeliosTransformer
from helios_video.helios_core.checkpoint.precision import is_float32
from helios_video.helios_core.commands.gpus import Member, free_port
from helios_video.helios_core.config.model import TransformerConfig
from helios_video.helios_core.history.window import History
from torch import distributed

SIZES = dict(num_attention_heads=4, attention_head_dim=24, rope_dim=(8, 8, 8), ffn_dim=160)
SIZES |= dict(num_layers=3, text_dim=20, freq_dim=32)
GRIDS = {"27 tokens": (6, 2), "54 tokens": (4, 6), "189 tokens": (6, 14)}  # latents high and wide, of nine frames
FORMS = {
    "fp32": {},
    "gain per head": {"is_amplify_history": True},
    "one gain": {"is_amplify_history": True, "history_scale_mode": "scalar"},
    "separate": {"fuse": False},
    "streamed": {"streamed": True},
    "int8": {"kind": "int8"},
    "int4": {"kind": "int4"},
    "fp8": {"kind": "fp8_e4m3fn"},
    "bf16": {"dtype": torch.bfloat16},
    "batch 2": {"batch": 2},
    "no history": {"history": False},
    "guided": {"texts": 2},
    "halves": {"texts": 2, "halves": True},
    "shared": {"streamed": True, "shared": True},
    "shared int8": {"kind": "int8", "streamed": True, "shared": True},
    "shared halves": {"texts": 2, "halves": True, "streamed": True, "shared": True},
}


def network(*, fuse=True, streamed=False, kind=None, dtype=None, **sizes):
    torch.manual_seed(0)
    model = HeliosTransformer(TransformerConfig(**SIZES, **sizes)).eval().requires_grad_(False)
    for name, p in model.named_parameters():
        p.data += 0.2 * torch.randn_like(p)
        if dtype is not None and not is_float32(name):
            p.data = p.data.to(dtype)
    if kind is not None:
        quant.quantise_model(model, kind)
    model = model.fuse() if fuse else model
    return offload.stream_blocks(model, "cpu") if streamed else model


def inputs(height, width, *, batch=1, history=True, texts=1):
    g = torch.Generator().manual_seed(height * 100 + width)
    window = torch.randn(batch, 16, History.length((16, 2, 1), True), height, width, generator=g)
    parts = History(window, torch.randn(batch, 16, 1, height, width, generator=g)).parts(9) if history else None
    prompts = torch.randn(texts, 1, 30, SIZES["text_dim"], generator=g)
    prompts[:, :, 17:] = 0
    return torch.randn(batch, 16, 9, height, width, generator=g), parts, prompts


def velocities(model, x, parts, prompts, ranks=None):
    """ranks: those whose halves compute a prompt each."""
    context = None if parts is None else model.history_context(parts)
    texts = [model.text_context(p) for p in prompts]
    if ranks is None:
        return torch.stack(model.velocities(x, 500.0, texts, context))
    return torch.stack(ranks.guided(lambda branch: model.velocities(x, 500.0, [texts[branch]], context)[0]))


class Counted:
    """Bytes that this process hands to others, read off the calls of torch.distributed themselves."""

    def __enter__(self):
        names = ("all_to_all_single", "all_gather", "all_gather_into_tensor")
        self.bytes, self.weights, self.own = 0, 0, {name: getattr(distributed, name) for name in names}

        def swap(out, send, came, went, **how):
            assert sum(went) == len(send) and sum(came) == len(out)
            self.bytes += send.nbytes - send[: went[distributed.get_rank(how.get("group"))]].nbytes
            return self.own["all_to_all_single"](out, send, came, went, **how)

        def gather(parts, x, **how):
            self.bytes += x.nbytes * (len(parts) - 1)
            return self.own["all_gather"](parts, x, **how)

        def gather_weights(whole, x, **how):
            self.weights += whole.nbytes - x.nbytes
            return self.own["all_gather_into_tensor"](whole, x, **how)

        for name, way in zip(self.own, (swap, gather, gather_weights), strict=True):
            setattr(distributed, name, way)
        return self

    def __exit__(self, *_):
        for name, way in self.own.items():
            setattr(distributed, name, way)


def weights_of(model, count, texts):
    """Bytes of shared weights that one of so many processes takes in for a step and the prompts before it, each of a
    matrix's parts filled up to 256 bytes. texts: prompts."""
    parts = [*SAMPLED, *(part for _ in range(texts) for part in ("attn2.to_k", "attn2.to_v"))]
    each = [t for block in model.blocks for part in parts for t in offload.matrices(block.get_submodule(part))]
    return sum((count - 1) * 256 * -(-t.nbytes // (256 * count)) for t in each)


@torch.inference_mode()
def networks(ranks, *_):
    """Every form at every size, alone and together: relative error, the result, bytes sent."""
    found = {}
    for form, options in FORMS.items():
        given = {k: options[k] for k in ("batch", "history", "texts", "halves", "shared") if k in options}
        model, together = (network(**{k: v for k, v in options.items() if k not in given}) for _ in range(2))
        ranks.use(together)
        halves = ranks if given.pop("halves", False) else None
        if given.pop("shared", False):
            total = sum(t.nbytes for block in model.blocks for t in offload.matrices(block))
            assert total / ranks.world <= shards.share_blocks(together, ranks) < total / ranks.world * 1.2
            assert shards.share_blocks(together, ranks) == 0
        for grid, size in GRIDS.items():
            before = ranks.sent
            alone = velocities(model, *inputs(*size, **given))
            with Counted() as counted:
                got = velocities(together, *inputs(*size, **given), halves)
            error = float((got - alone).norm() / alone.norm())
            about = {"history": 0, "size": size, **given}
            if given.get("history", True):
                about["history"] = model.history_context(inputs(*size)[1]).tokens.shape[1]
            found[form, grid] = {"error": error, "got": got, "sent": ranks.sent - before, "counted": counted.bytes}
            shared = weights_of(model, ranks.world, given.get("texts", 1)) if options.get("shared") else 0
            found[form, grid] |= {**about, "weights": (counted.weights, shared)}
    return found


def videos(ranks, folder, names):
    """helios-tiny's chunks, led by the first process; there also those that one alone makes."""
    from helios_video.helios_core import load
    from helios_video.helios_core.with_loras import with_loras

    leader = leading.Leader(ranks) if ranks.number == 0 else None
    found, halves = {}, ranks.halves
    for name in names:
        how = VIDEOS[name]
        options = {"weight_dtype": how.get("weight_dtype", "fp32"), "offload": how.get("offload", "none")}
        ranks.halves = halves if "halves" in name else None

        def opened(host=None, options=options, how=how):
            model = load(**options, **({} if host is None else {"host": host}))
            lora = [(Path(folder, "tiny.safetensors"), 1.0, "")] if how.get("lora") else []
            return with_loras(model, lora, mode=how["lora"]) if lora else model

        together = opened(Member(parallel, ranks, leader, shards if "shared" in name else None))
        if leader is None:
            leading.Follower(ranks).follow(together.parts.ready)
            continue
        alone = opened()
        found[name] = {"alone": chunks(alone, **how), "together": chunks(together, **how)}
        for size in DECODED:
            z = torch.randn(1, 16, 9, *size, generator=torch.Generator().manual_seed(0))
            with Counted() as counted:
                found[name, size] = [float_frames(each, z) for each in (alone, together)]
            assert (counted.bytes > 0) == bands.divides(size[0], ranks)
        leader.end()
    return found


VIDEOS = {
    "plain": {},
    "guided": {"cfg": 3.0},
    "halves": {"cfg": 3.0},
    "zero star": {"cfg": 3.0, "guidance": "cfg_zero_star"},
    "batch": {"batch": 2},
    "picture": {"image": True},
    "int8": {"weight_dtype": "int8"},
    "streamed": {"offload": "blocks"},
    "shared, with a lora": {"offload": "blocks", "lora": "apply"},
    "shared halves": {"offload": "blocks", "cfg": 3.0},
    "lora": {"lora": "apply"},
    "merged": {"lora": "merge"},
}


DECODED = {(8, 8): "bands of 4 or 2 rows", (9, 6): "rows that are not shared out", (16, 12): "wider bands"}


def float_frames(helios, z):
    vae = helios.parts.ready("vae", z.shape[4] * 8, z.shape[3] * 8)
    with torch.inference_mode():
        return torch.cat([*helios.backend.decode_blocks(vae, z)], dim=2)


def chunks(helios, *, batch=1, image=False, lora=None, weight_dtype=None, offload=None, **options):
    start = {"image": torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1)), "seed": 3} if image else {}
    history, found = helios.history(64, 64, batch=batch, **start), []
    for _ in range(2):
        *_, step = helios.sample(history, helios.text("a red circle"), seed=3, steps=(1, 1, 1), **options)
        history = history.append(step.latent)
        found.append(step.latent.clone())
    return torch.stack(found)


def run(what, count: int, folder: Path, names=()) -> list[dict]:
    """What so many processes found: of each, `what` (networks, or videos of those names)."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    given = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "PYTHONPATH": path}
    line = [sys.executable, "-c", "from support.ranks import main; main()", what.__name__, str(folder), *names]
    own = {**os.environ, **{name: str(value) for name, value in given.items()}}
    processes = [subprocess.Popen(line, env={**own, "RANK": str(rank)}) for rank in range(count)]
    try:
        assert [process.wait(300) for process in processes] == [0] * count
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def main() -> None:
    torch.set_num_threads(1)
    _, what, folder, *names = sys.argv
    with parallel.joined(torch.device("cpu"), halves=True) as ranks:
        found = {"networks": networks, "videos": videos}[what](ranks, folder, names)
    torch.save(found, Path(folder, f"{ranks.number}.pt"))
