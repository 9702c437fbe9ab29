"""What CUDA's slots ask of streams and events, with stand-ins for those, on the CPU."""

from contextlib import nullcontext

import pytest
import torch
from helios_video.helios_core.backends.torch import offload, pinned


class Queue:
    """In place of a CUDA stream and of an event: notes the order of what they are asked for."""

    def __init__(self, log, name):
        self.log, self.name = log, name

    def __getattr__(self, what):
        return lambda *others: self.log.append(" ".join([self.name, what, *(o.name for o in others)]))


@pytest.fixture
def cuda(monkeypatch):
    """Stand-ins for streams, events and pinned memory; the log of what they are asked for."""
    log, count = [], iter(range(100))
    empty, compute = torch.empty, Queue(log, "compute")
    monkeypatch.setattr(torch, "empty", lambda *a, pin_memory=False, **k: empty(*a, **k))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Queue(log, f"copy{next(count)}"))
    monkeypatch.setattr(torch.cuda, "Event", lambda: Queue(log, f"event{next(count)}"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: compute)
    return log


def through(kind, log, monkeypatch, stay=()):
    """Four layers streamed through slots of a kind; what they gave, and should have given."""
    monkeypatch.setattr(offload.BlockStream, "_kind", lambda self: kind)
    blocks = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(4)).requires_grad_(False)
    x, found, stream = torch.randn(2, 4), [], offload.BlockStream("cpu")
    stream.stay = frozenset(stay)
    for i, block in enumerate(stream(blocks)):
        log.append(f"block {i}")
        found.append(block(x))
    assert all(map(torch.equal, found, [block(x) for block in blocks]))


A, B = ("copy0", "event1", "event2"), ("copy3", "event4", "event5")  # stream, fetched, computed of either slot


def test_the_cuda_slots_wait_for_what_they_must(cuda, monkeypatch):
    """A slot is read once its copy has come, and refilled once it was read."""
    through(offload.CudaSlot, cuda, monkeypatch)
    fetch = {slot: [f"{slot[0]} wait_event {slot[2]}", f"{slot[1]} record {slot[0]}"] for slot in (A, B)}
    wanted = ["copy0 wait_stream compute", "copy3 wait_stream compute", *fetch[A], *fetch[B]]
    for i, (slot, again) in enumerate([(A, True), (B, True), (A, False), (B, False)]):
        wanted += [f"compute wait_event {slot[1]}", f"block {i}", f"{slot[2]} record compute"]
        wanted += fetch[slot] if again else []
    assert cuda == wanted


def test_a_staging_thread_waits_for_its_memory_and_the_device_for_the_copy(cuda, monkeypatch):
    through(offload.StagedSlot, cuda, monkeypatch, stay=(1,))
    for slot, blocks in ((A, (0, 3)), (B, (2,))):
        own = [line for line in cuda if any(name in line.split() for name in slot)]
        fetch = [f"{slot[1]} synchronize", f"{slot[0]} wait_event {slot[2]}", f"{slot[1]} record {slot[0]}"]
        used = [f"compute wait_event {slot[1]}", f"{slot[2]} record compute"]
        assert own == [f"{slot[0]} wait_stream compute", *[*fetch, *used] * len(blocks)]


def test_an_error_of_the_staging_thread_is_raised_where_the_block_is_wanted(cuda, monkeypatch):
    def fail(self, sources):
        raise OSError("the file is gone")

    monkeypatch.setattr(offload.StagedSlot, "_stage", fail)
    with pytest.raises(OSError, match="the file is gone"):
        through(offload.StagedSlot, cuda, monkeypatch)


def test_what_streams_is_pinned_once_where_the_host_has_room(cuda, monkeypatch):
    monkeypatch.setattr(pinned, "PIECE", 1000)
    blocks = torch.nn.ModuleList(torch.nn.Linear(10, n) for n in (10, 13, 30, 5)).requires_grad_(False)
    stream = offload.BlockStream("cpu")
    before = [block.weight.clone() for block in blocks]
    taken = list(pinned.pieces([block.weight for block in blocks]))
    assert [(n, len(group)) for n, group in taken] == [(512, 1), (768, 1), (1280, 1), (256, 1)]
    for room, held in ((offload.LEFT + 1000, False), (offload.LEFT + 10_000, True)):
        monkeypatch.setattr(offload, "host_free", lambda room=room: room)
        stream._pin([block.weight for block in blocks])
        assert stream.pinned == held and all((block.weight in stream.memory) == held for block in blocks)
    monkeypatch.setattr(offload, "host_free", lambda: 0)
    stream._pin([block.weight for block in blocks])
    assert stream.pinned, "they are there already"
    assert all(map(torch.equal, before, [block.weight for block in blocks]))
