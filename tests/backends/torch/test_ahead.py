"""Mapped weights are asked for before they are used, in the order of use, and only where they are still mapped."""

from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.backends.torch import ahead
from helios_video.helios_core.backends.torch.load import load_text_encoder, load_transformer
from helios_video.helios_core.backends.torch.transformer import SAMPLED
from helios_video.helios_core.history.window import History


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


class AtOnce:
    """The reading thread, without one."""

    def submit(self, run, *args):
        run(*args)
        return Future()


@pytest.fixture
def asked(monkeypatch):
    """The ranges that are asked for after loading, in order."""
    found = []
    monkeypatch.setattr(ahead, "ask", lambda *place: found.append(place))
    monkeypatch.setattr(ahead, "reader", AtOnce)
    return found


@pytest.fixture
def model(asked):
    checkpoint = load(backend="torch").checkpoint
    made = load_transformer(checkpoint.sources["transformer"], checkpoint.config, dtype="auto", device="cpu")
    asked.clear()
    return made


def covered(ranges, places) -> bool:
    return all(
        any(p == path and begin <= at and at + n <= begin + size for p, begin, size in ranges) for path, at, n in places
    )


def places(model, i: int, part: str = "") -> list:
    return [at for name, _, at in model.ahead.found[i] if name.startswith(part)]


def test_each_block_is_asked_for_before_it_computes(model, asked, monkeypatch):
    monkeypatch.setattr(ahead, "GAP", 0)
    seen = []
    for i, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda *_, i=i: seen.append((i, list(asked))))
    history = History(torch.randn(1, 16, 19, 8, 8), torch.randn(1, 16, 1, 8, 8)).parts(2)
    text = model.text_context(torch.randn(1, 8, model.config.text_dim))
    numbers, parts = range(len(model.blocks)), ("attn2.to_k", "attn2.to_v")
    pairs = [at for i in numbers for part in parts for at in places(model, i, part)]
    assert pairs and covered(asked, pairs)
    context = model.history_context(history)
    for _ in range(2):
        asked.clear()
        seen.clear()
        model.velocity(torch.randn(1, 16, 2, 8, 8), 500.0, text, context)
        assert [i for i, _ in seen] == list(range(len(model.blocks)))
        for i, before in seen:
            for other in range(i, min(i + ahead.BLOCKS + 1, len(model.blocks))):
                wanted = [at for part in SAMPLED for at in places(model, other, part)]
                assert wanted and covered(before, wanted)
        assert not covered(asked, pairs)  # which are not used again


def test_what_is_mapped_lies_where_it_says(model):
    for i, block in enumerate(model.blocks):
        tensors = dict((*block.named_parameters(), *block.named_buffers()))
        for name, is_there, (path, start, nbytes) in model.ahead.found[i]:
            assert is_there()
            with path.open("rb") as file:
                file.seek(start)
                assert file.read(nbytes) == bytes(tensors[name].detach().flatten().view(torch.uint8).numpy())


def test_what_has_moved_away_is_not_asked_for(model, asked):
    for _ in model.each_block():
        pass
    assert asked
    asked.clear()
    for tensor in (*model.blocks.parameters(), *model.blocks.buffers()):
        tensor.data = tensor.data.clone()  # as what comes back from a device
    for _ in model.each_block():
        pass
    assert not asked


def test_streamed_blocks_are_asked_for_too(asked):
    checkpoint = load(backend="torch").checkpoint
    source = checkpoint.sources["transformer"]
    model = load_transformer(source, checkpoint.config, dtype="auto", device="cpu", streamed=True)
    asked.clear()
    for i, _ in enumerate(model.each_block()):
        assert covered(asked, places(model, i))


def test_the_text_encoder_asks_too(asked):
    encoder = load_text_encoder(load(backend="torch").checkpoint.sources["text_encoder"])
    asked.clear()
    encoder("a red ball")
    assert asked


@pytest.mark.parametrize("free,waits", [(10**12, True), (1000, False)])
def test_what_fits_is_brought_in_as_it_loads(free, waits, monkeypatch):
    checkpoint, brought = load(backend="torch").checkpoint, []
    monkeypatch.setattr(ahead, "host_free", lambda: free)
    monkeypatch.setattr(ahead, "bring", lambda *place: brought.append(place))
    load_transformer(checkpoint.sources["transformer"], checkpoint.config, dtype="auto", device="cpu")
    assert bool(brought) == waits


@pytest.mark.parametrize("asks", [True, False])
def test_asking_reads_on_any_system_and_never_fails(asks, tmp_path, monkeypatch):
    monkeypatch.setattr(ahead, "ASKS", asks and ahead.ASKS)
    path = tmp_path / "x"
    path.write_bytes(bytes(5 * 2**20))
    for place in ((path, 3, 5 * 2**20 - 3), (path, 5 * 2**20, 10), (path, 0, 0), (tmp_path / "gone", 0, 10)):
        ahead.ask(*place)


def test_neighbours_are_asked_for_as_one():
    one, other = Path("a"), Path("b")
    far = 3 * ahead.GAP
    found = [(one, 100, 50), (other, 0, 10), (one, 0, 100), (one, far, 10), (one, 200, 10)]
    assert ahead.joined(found) == [(one, 0, 210), (one, far, 10), (other, 0, 10)]
