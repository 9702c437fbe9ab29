"""What compiling the transformer's blocks brings: time on this CPU beside eager ones, bytes by the compiler's count.

python tests/benchmarks/compiled.py --size 65m --dtype fp32
python tests/benchmarks/compiled.py --bytes

Times are CPU seconds of the process, eager and compiled in turn, with one thread unless asked: so a busy machine counts
little. Bytes are those that inductor says its kernels read and write between products and attention, for one block of
the published width at the three sizes of 640x384, with Triton's kernels and without; nothing runs.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from timing import DTYPES
from transformer import SIZES, build_ours

HISTORY, CURRENT = 2400, (540, 2160, 8640)  # tokens at 640x384
BLOCKS, STEPS = 40, 2


@torch.inference_mode()
def race(size: str, dtype: torch.dtype, repeats: int) -> tuple[float, float, float]:
    """(eager seconds, compiled seconds, the median of the ratios of neighbours)."""
    from helios_video.helios_core.backends.torch import compiled

    model, forward = build_ours(size, dtype)
    twin = copy.copy(model)
    compiled.use(twin)
    runs = (lambda: forward(model)), (lambda: forward(twin))
    wanted, found = (run() for run in runs)
    print(f"{size}, {dtype}: compiled differs by {float((found - wanted).norm() / wanted.norm()):.1e}")
    rounds = []
    for _ in range(repeats):
        spent = []
        for run in runs:
            then = time.process_time()
            run()
            spent.append(time.process_time() - then)
        rounds.append((*spent, spent[0] / spent[1]))
    return tuple(map(statistics.median, zip(*rounds)))


def count(current: int, kernels: bool) -> float:
    """Bytes of one block by inductor's scheduler, its products and attention left out."""
    from helios_video.helios_core.backends.torch import triton_ops
    from torch._inductor.debug import DebugContext
    from torch._inductor.decomposition import select_decomp_table
    from torch._inductor.graph import GraphLowering
    from torch._inductor.virtualized import V
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    torch.compiler.is_compiling = lambda: True
    triton_ops.usable = lambda name, *_, **__: kernels and name in triton_ops.COMPILED
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        run, inputs = block(current)
        graph = make_fx(run, decomposition_table=select_decomp_table())(*inputs)
        lowering = GraphLowering(graph, example_inputs=inputs, shape_env=ShapeEnv())
        with V.set_fake_mode(mode), V.set_graph_handler(lowering), V.set_extern_kernel_nodes([]):
            with V.set_debug_handler(DebugContext()):
                lowering.run(*inputs)
                lowering._update_scheduler()
                return sum(map(moved, lowering.scheduler.nodes))


def block(current: int):
    """A block of the published width in bfloat16 as a function of tensors, and the tensors, without data."""
    from helios_video.helios_core.backends.torch.layers import Modulation
    from helios_video.helios_core.backends.torch.transformer import FLOAT32, Block
    from helios_video.helios_core.config.model import TransformerConfig

    config = TransformerConfig()
    made = Block(config)
    for name, p in list(made.named_parameters()):
        dtype = torch.float32 if any(part in name for part in FLOAT32) else torch.bfloat16
        parent, _, leaf = name.rpartition(".")
        setattr(made.get_submodule(parent), leaf, torch.nn.Parameter(torch.empty(p.shape, dtype=dtype), False))
    made.attn1.fuse()
    d, head = config.dim, config.attention_head_dim
    mods = tuple(tuple(Modulation(*torch.empty(3, 1, 1, d)) for _ in range(2)) for _ in range(2))
    text = torch.empty(2, 1, config.num_attention_heads, 257, head, dtype=torch.bfloat16)
    given = [torch.empty(1, HISTORY, d), torch.empty(1, current, d)], mods, torch.empty(HISTORY + current, head // 2, 2)
    flat, form = torch.utils._pytree.tree_flatten((given, (*text, None), dict(made.named_parameters())))

    def run(*tensors):
        args, context, weights = torch.utils._pytree.tree_unflatten(tensors, form)
        return torch.func.functional_call(made, weights, (*args, context))

    return run, flat


def moved(node) -> int:
    """Bytes of one kernel: the compiler's, or one of Triton's that queries and keys are turned by."""
    from torch._inductor.scheduler import ExternKernelSchedulerNode, NopKernelSchedulerNode

    if isinstance(node, NopKernelSchedulerNode):
        return 0
    own = not isinstance(node, ExternKernelSchedulerNode) or "turn" in str(node.node.origin_node)
    return node.get_read_write_buffers_sizes() if own else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, action="append")
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bytes", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.bytes:
        for kernels in (False, True):
            chunk = BLOCKS * STEPS * sum(count(n, kernels) for n in CURRENT) / 1e9
            print(f"compiled, {'with' if kernels else 'without'} Triton's kernels: {chunk:.0f} GB a chunk")
        return
    for size in args.size or SIZES:
        for name in args.dtype or DTYPES:
            eager, compiled, ratio = race(size, DTYPES[name], args.repeats)
            print(
                f"{size}, {name}: eager {eager:.3f} s, compiled {compiled:.3f} s, {ratio:.2f} times as fast", flush=True
            )


if __name__ == "__main__":
    main()
