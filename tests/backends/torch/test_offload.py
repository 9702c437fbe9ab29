"""Streaming blocks from host memory, forced on the CPU: the same bits as the resident model. Named: D8, V2."""

import weakref

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import offload
from helios_video.helios_core.backends.torch.transformer import SAMPLED, HeliosTransformer
from helios_video.helios_core.config.model import TransformerConfig

TEXT = torch.linspace(-1, 1, 512 * 64).view(1, 512, 64)
TEXT[:, 20:] = 0


def run(helios, chunks=2, **options):
    """The chunks' latents, the history fed on."""
    history, found = helios.history(64, 64), []
    for _ in range(chunks):
        *_, step = helios.sample(history, TEXT, seed=3, steps=(1, 1, 1), **options)
        history = history.append(step.latent)
        found.append(step.latent)
    return found


@pytest.mark.parametrize("dtype", ["auto", "fp32", "fp8_e4m3fn", "int8", "int4"])
def test_d8_streamed_blocks_equal_resident_ones_on_both_chunks(dtype):
    """The peer's prefetch missed the history's patch embeddings; here all but the blocks' matrices is resident."""
    resident, streamed = load(weight_dtype=dtype, offload="none"), load(weight_dtype=dtype, offload="blocks")
    for one, other in zip(run(resident), run(streamed), strict=True):
        assert torch.equal(one, other)
    assert resident.parts.transformer.streamer is None and streamed.parts.transformer.streamer is not None


def test_streaming_with_guidance():
    options = {"negative": -TEXT, "cfg": 3.0}
    assert all(map(torch.equal, run(load(offload="none"), **options), run(load(offload="blocks"), **options)))


def test_guidance_fetches_each_block_once_for_both_branches(monkeypatch):
    """Two passes would fetch each twice. The prompts' keys and values are there before."""
    helios, fetched = load(offload="blocks"), []
    options = {"negative": -TEXT, "cfg": 3.0}
    run(helios, chunks=1, **options)
    real = offload.Slot.fetch
    monkeypatch.setattr(offload.Slot, "fetch", lambda self, ts: (fetched.append(ts), real(self, ts)))
    run(helios, chunks=1, **options)
    assert len(fetched) == 3 * len(helios.parts.transformer.blocks)
    once = {
        id(t) for block in helios.parts.transformer.blocks for t in (block.attn2.to_k.weight, block.attn2.to_v.weight)
    }
    assert not any(id(t) in once for tensors in fetched for t in tensors)  # used for keys and values alone


@pytest.mark.parametrize("options", [{}, {"negative": -TEXT, "cfg": 3.0}])
def test_blocks_that_stay_change_no_bit(options):
    wanted, helios = run(load(offload="none"), **options), load(offload="blocks")
    model = helios.parts.transformer
    for count in (1, len(model.blocks), 0, 2):
        model.streamer.keep(model, count)
        assert len(model.streamer.stay) == min(count, len(model.blocks))
        assert all(map(torch.equal, run(helios, **options), wanted))
        assert len(model.streamer.slots) == min(2, len(model.blocks) - count)


def test_those_that_stay_lie_between_those_that_stream():
    assert offload.spread(4, 4) == frozenset() and offload.spread(0, 4) == {0, 1, 2, 3}
    assert offload.spread(2, 8) == {0, 1, 2, 4, 5, 6} and offload.spread(6, 8) == {0, 4}
    assert all(len(offload.spread(n, 40)) == 40 - n for n in range(41))


def test_a_run_after_one_without_memory_for_the_slots(monkeypatch):
    """`size` was set before the slots were there, and every later run raised IndexError."""
    helios, real, left = load(offload="blocks"), offload.Slot.__init__, [1]

    def init(self, *args):
        if left and not left.pop():
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        real(self, *args)

    left[:] = [0, 1]  # the second slot finds none
    monkeypatch.setattr(offload.Slot, "__init__", init)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run(helios, chunks=1)
    assert torch.equal(*run(helios, chunks=1), *run(load(offload="none"), chunks=1))


def test_fewer_blocks_stay_where_memory_runs_out(monkeypatch):
    helios = load(offload="blocks")
    model, real, count = helios.parts.transformer, offload._move, iter(range(9))

    def move(block, device):
        if next(count) == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        real(block, device)

    monkeypatch.setattr(offload, "_move", move)
    model.streamer.keep(model, len(model.blocks))
    assert model.streamer.stay == {0}
    assert torch.equal(*run(helios, chunks=1), *run(load(offload="none"), chunks=1))


def watch(model):
    """Records, before every block, which blocks' matrices lie in a slot."""
    seen = []

    def on_block():
        slots = [slot.memory for slot in model.streamer.slots]
        ranges = [range(m.data_ptr(), m.data_ptr() + m.nbytes) for m in slots]
        used = [[t for part in SAMPLED for t in offload.matrices(block.get_submodule(part))] for block in model.blocks]
        inside = [[any(t.data_ptr() in r for r in ranges) for t in block] for block in used]
        assert all(len(set(block)) == 1 for block in inside)  # wholly in or wholly out
        seen.append([i for i, block in enumerate(inside) if block[0]])

    model.on_block = on_block
    return seen


def test_one_block_computes_from_a_slot_and_the_host_keeps_its_own():
    helios = load(offload="blocks")
    model = helios.parts.transformer
    before = {name: (t.data_ptr(), t.clone()) for name, t in model.state_dict().items()}
    seen = watch(model)
    run(helios, chunks=1)
    assert seen[: len(model.blocks)] == [[i] for i in range(len(model.blocks))]
    after = model.state_dict()
    assert all(after[n].data_ptr() == place and torch.equal(after[n], t) for n, (place, t) in before.items())


def test_device_memory_is_two_blocks():
    helios = load(offload="blocks")
    run(helios, chunks=1)
    largest = max(sum(t.nbytes for t in offload.matrices(block)) for block in helios.parts.transformer.blocks)
    slots = helios.parts.transformer.streamer.slots
    assert len(slots) == 2 and all(largest <= slot.memory.nbytes < 1.01 * largest for slot in slots)
    assert helios.parts.estimate().block == pytest.approx(largest, rel=0.01)


def test_a_run_stopped_in_the_middle_leaves_no_block_behind():
    class Stopped(Exception):
        pass

    helios, count = load(offload="blocks"), 0
    wanted = run(load(offload="none"), chunks=1)

    def stop():
        nonlocal count
        count += 1
        if count == 2:
            raise Stopped

    helios.parts.transformer.on_block = stop
    with pytest.raises(Stopped) as kept:  # its traceback holds the generator, bound block and all
        run(helios, chunks=1)
    assert torch.equal(*run(helios, chunks=1), *wanted)
    assert kept is not None


def test_v2_weights_changed_between_runs_are_seen():
    """Nothing of the old weights is kept in a slot."""
    helios = load(offload="blocks", weight_dtype="fp32")
    first = run(helios, chunks=1)
    layer = helios.parts.transformer.blocks[1].attn2.to_out[0]
    layer.weight = torch.nn.Parameter(layer.weight * 2, requires_grad=False)
    changed = run(helios, chunks=1)
    resident = load(offload="none", weight_dtype="fp32")
    resident.parts.transformer.blocks[1].attn2.to_out[0].weight.data *= 2
    assert torch.equal(*changed, *run(resident, chunks=1)) and not torch.equal(*changed, *first)


def test_blocks_of_different_sizes_fit_the_largest():
    torch.manual_seed(0)
    blocks = torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Linear(3, n), torch.nn.Linear(n, 3)) for n in (5, 64, 7))
    blocks.requires_grad_(False)
    x = torch.randn(2, 3)
    streamed = [block(x) for block in offload.BlockStream("cpu")(blocks)]
    assert all(map(torch.equal, streamed, [block(x) for block in blocks]))


def test_what_is_on_the_device_already_is_not_streamed():
    """As an adapter's matrices beside a layer that streams."""
    block = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4, device="meta")])
    assert [t.device.type for t in offload.matrices(block)] == ["cpu"]


def test_d8_all_but_the_blocks_matrices_is_on_the_device_for_good():
    config = dict(num_attention_heads=2, attention_head_dim=24, rope_dim=(8, 8, 8), ffn_dim=64, num_layers=2)
    model = HeliosTransformer(TransformerConfig(**config, text_dim=16))
    moved = {id(t) for t in offload.resident(model)}
    for name, p in model.named_parameters():
        assert (id(p) in moved) != (name.startswith("blocks.") and p.ndim == 2), name


def test_a_released_model_takes_its_slots_along():
    helios = load(offload="blocks")
    run(helios, chunks=1)
    slot = weakref.ref(helios.parts.transformer.streamer.slots[0])
    helios.parts.release("transformer")
    assert slot() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", ["bf16", "int4"])
def test_streaming_on_a_gpu_equals_the_resident_model_in_less_memory(dtype):
    torch.manual_seed(0)
    config = TransformerConfig(num_attention_heads=8, attention_head_dim=128, ffn_dim=4096, num_layers=12, text_dim=64)
    from helios_video.helios_core.backends.torch.quant import quantise_model
    from helios_video.helios_core.history.window import History

    model = HeliosTransformer(config).requires_grad_(False).eval().bfloat16().fuse()
    for name, p in model.named_parameters():
        p.data = p.data.float() if "time_embedder" in name or "scale_shift" in name or "norm" in name else p.data
    model = quantise_model(model, dtype) if dtype != "bf16" else model
    history = History(torch.randn(1, 16, 19, 8, 8), torch.randn(1, 16, 1, 8, 8)).parts(9)
    x, found, peaks = torch.randn(1, 16, 9, 8, 8), [], []
    for prepare in (lambda m: offload.stream_blocks(m, "cuda"), lambda m: m.cuda()):
        model.streamer = None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        ready = prepare(model)
        for _ in range(3):
            found.append(
                ready.velocity(ready.array(x), 500.0, ready.text_context(TEXT), ready.history_context(history))
            )
        peaks.append(torch.cuda.max_memory_allocated())
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert peaks[0] < 0.5 * peaks[1]
