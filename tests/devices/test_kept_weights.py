"""Weights that were quantised on load are found again, to the bit; bounded, said aloud, and broken ones go."""

import logging

import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.devices import KeptWeights, kept_weights
from helios_video.helios_core.devices.parts import Host


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def worth(monkeypatch):
    monkeypatch.setattr(kept_weights, "WORTH", 0)


def opened(folder, kind="int8", **options):
    return load(backend="torch", weight_dtype=kind, weights_folder=folder, **options)


def read(helios) -> None:
    assert helios.parts.transformer is not None


def state(helios) -> dict:
    return {name: t.view(torch.uint8).clone() for name, t in helios.parts.transformer.state_dict().items()}


def alike(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def files(folder) -> list:
    return sorted((folder / "weights").glob("*")) if folder.is_dir() else []


@pytest.mark.parametrize("kind", ["fp8_e4m3fn", "int8", "int4", "int4_g32"])
def test_they_are_those_of_quantising_on_load_and_are_found_again(kind, worth, tmp_path, caplog, monkeypatch):
    wanted = state(opened(None, kind))
    first = state(opened(tmp_path, kind))
    (path,) = files(tmp_path)
    assert f"are kept in {path}" in caplog.text and "HELIOS_WEIGHTS_CACHE=off" in caplog.text
    caplog.clear()
    monkeypatch.setattr(KeptWeights, "make", lambda *a: pytest.fail("quantised anew"))
    again = state(opened(tmp_path, kind))
    assert alike(wanted, first) and alike(wanted, again) and files(tmp_path) == [path] and not caplog.text


def test_each_form_and_each_file_has_its_own(worth, tmp_path):
    for kind in ("int8", "int4", "int8_g32"):
        read(opened(tmp_path, kind))
    assert len(files(tmp_path)) == 3
    read(opened(tmp_path, "auto"))
    read(opened(tmp_path, "bf16"))
    assert len(files(tmp_path)) == 3


def test_small_ones_and_a_cache_that_is_off_keep_none(tmp_path, monkeypatch):
    read(opened(tmp_path))
    monkeypatch.setattr(kept_weights, "WORTH", 0)
    monkeypatch.setenv(kept_weights.VARIABLE, "off")
    read(opened(tmp_path))
    assert not files(tmp_path)
    monkeypatch.setenv(kept_weights.VARIABLE, "much")
    with pytest.raises(ValueError, match="HELIOS_WEIGHTS_CACHE is 'much'; wanted off, or how many GB"):
        opened(tmp_path)


def test_the_limit_and_the_disk_bound_them(worth, tmp_path, monkeypatch, caplog):
    read(opened(tmp_path, "int8"))
    (old,) = files(tmp_path)
    size = old.stat().st_size
    monkeypatch.setenv(kept_weights.VARIABLE, str(1.5 * size / 1e9))
    read(opened(tmp_path, "int8_g64"))
    (new,) = files(tmp_path)
    assert new != old  # which went for it
    monkeypatch.setenv(kept_weights.VARIABLE, str(0.5 * size / 1e9))
    caplog.clear()
    read(opened(tmp_path, "int8"))
    assert files(tmp_path) == [new] and "are not kept" in caplog.text
    monkeypatch.delenv(kept_weights.VARIABLE)
    monkeypatch.setattr(KeptWeights, "room", lambda self: size // 2)
    read(opened(tmp_path, "int8"))
    assert files(tmp_path) == [new]


def damage(path, how: str) -> None:
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    if how == "cut":
        data = data[: len(data) // 2]
    elif how == "empty":
        data = bytearray()
    elif how == "another's":
        data = data.replace(b"blocks.0.attn1", b"blocks.9.attn1")
    elif how == "form":
        data = data.replace(b'"int8"', b'"int4"')
    elif how == "no text":
        data[8:40] = b"\xff" * 32
    elif how == "length":
        data[:8] = b"\xff" * 8
    else:  # NaN among the factors, which lie at the beginning as the widest
        data[8 + length : 8 + length + 64] = b"\xff" * 64
    path.unlink()  # who has it mapped keeps it
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "empty", "another's", "form", "no text", "length", "nan"])
def test_a_broken_one_goes_by_name_and_is_made_anew(how, worth, tmp_path, caplog):
    wanted = state(opened(tmp_path))
    (path,) = files(tmp_path)
    damage(path, how)
    caplog.clear()
    assert alike(wanted, state(opened(tmp_path)))
    assert f"the kept weights {path} are broken and go" in caplog.text
    caplog.clear()
    assert files(tmp_path) == [path] and alike(wanted, state(opened(tmp_path))) and not caplog.text


@pytest.mark.parametrize("how", ["cut", "nan"])
def test_a_broken_one_that_cannot_be_removed_is_left_aside(how, worth, tmp_path, caplog, monkeypatch):
    wanted = state(opened(tmp_path))
    (path,) = files(tmp_path)
    damage(path, how)

    def refused(self, missing_ok=False):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "unlink", refused)
    caplog.clear()
    assert alike(wanted, state(opened(tmp_path)))
    assert caplog.text.count("cannot be removed") == 1 and files(tmp_path) == [path]


def test_one_that_another_process_removes_before_it_is_read_is_made_anew(worth, tmp_path, monkeypatch):
    wanted, find, found = state(opened(tmp_path)), KeptWeights.find, []

    def gone(self, *args):
        found.append(find(self, *args))
        if len(found) == 1:
            files(tmp_path)[0].unlink()
        return found[-1]

    monkeypatch.setattr(KeptWeights, "find", gone)
    assert alike(wanted, state(opened(tmp_path))) and len(found) == 2 and len(files(tmp_path)) == 1


def test_after_a_crash_nothing_is_left(worth, tmp_path, monkeypatch):
    helios, count = opened(tmp_path), []

    def fails(name, stored, kind):
        count.append(name)
        if len(count) == 3:
            raise KeyboardInterrupt
        yield from make(name, stored, kind)

    make = helios.backend.quantised_bytes
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(helios.backend, "quantised_bytes", fails)
        read(helios)
    assert not files(tmp_path) and helios.parts.transformer is not None and len(files(tmp_path)) == 1


def test_a_disk_that_cannot_be_written_costs_a_warning(worth, tmp_path, caplog):
    (tmp_path / "weights").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        read(opened(tmp_path))
    assert "quantised weights are not kept" in caplog.text


def test_sequential_reads_them_again_from_chunk_to_chunk(worth, tmp_path, monkeypatch):
    """What the device has no room for is forgotten, and was quantised anew for each chunk."""
    helios = opened(tmp_path, offload="sequential")
    first = state(helios)
    helios.parts.release("transformer")
    monkeypatch.setattr(helios.backend, "quantised_bytes", lambda *a: pytest.fail("quantised anew"))
    assert alike(first, state(helios))


def test_a_host_is_told_how_far_reading_is(worth, tmp_path):
    told = {}

    class Told(Host):
        def reading(self, what, total):
            from contextlib import nullcontext

            return nullcontext(lambda done, most: told.setdefault(what, []).append((done, most, total)))

    helios = opened(tmp_path, host=Told())
    assert all(getattr(helios.parts, name) for name in ("transformer", "vae", "text_encoder"))
    names = ["quantising to int8: transformer", "reading transformer", "reading vae", "reading text encoder"]
    assert list(told) == names
    for steps in told.values():
        done = [step[0] for step in steps]
        assert done == sorted(done) and len(steps) > 5 and all(most == total for _, most, total in steps)
    assert all(told[name][-1][0] == told[name][-1][1] for name in names)


def test_a_host_may_stop_the_reading(tmp_path):
    class Stopped(Host):
        def reading(self, what, total):
            from contextlib import nullcontext

            def stop(done, total):
                raise InterruptedError

            return nullcontext(stop)

    helios = opened(None, host=Stopped())
    for name in ("transformer", "vae", "text_encoder"):
        with pytest.raises(InterruptedError):
            getattr(helios.parts, name)
