"""Prompt embeddings that are remembered: on disk by content, bounded, whole or not at all; the encoder loads last.

Named: V1 (prompts differ, whatever the cache), D10 in part: an encoder that is not needed is not loaded.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from helios_video.helios_core import load
from helios_video.helios_core.checkpoint import folders
from helios_video.helios_core.cli import main
from helios_video.helios_core.disk import store
from helios_video.helios_core.disk.store import Store, fingerprint
from helios_video.helios_core.pipeline import TINY
from helios_video.helios_core.text import Embedding
from helios_video.helios_core.text import remembered as embeddings
from helios_video.helios_core.text.remembered import Embeddings
from helios_video.nodes import host
from safetensors.numpy import load_file, save_file

WIDTH, LENGTH = 6, 16


class Encoder:
    """A row per word and one more, from the word's letters; counts what it is asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, prompt):
        self.asked.append(prompt)
        words = [*prompt.split(), "</s>"]
        rows = [[float(len(word)), *map(float, word.encode()[:1] * (WIDTH - 1))] for word in words]
        return Embedding(torch.tensor([rows]), LENGTH)


def remembered(encoder, folder=None, *, key="tiny", **options):
    disk = None if folder is None else Store(folder, **options)
    return Embeddings(encoder, torch.as_tensor, key=key, length=LENGTH, width=WIDTH, disk=disk)


def files(folder):
    return sorted(folder.glob("*")) if folder.is_dir() else []


def test_a_prompt_is_encoded_once_and_equal_ever_after(tmp_path):
    encoder, plain = Encoder(), Encoder()
    first = remembered(encoder, tmp_path / "c")
    for _ in range(2):
        assert torch.equal(first(["a b", "c", "a b"]).padded, torch.cat([plain(p).padded for p in ("a b", "c", "a b")]))
    assert encoder.asked == ["a b", "c"]
    later = remembered(encoder, tmp_path / "c")
    assert torch.equal(later("c").rows, plain("c").rows) and later("c").rows.dtype == torch.float32
    assert encoder.asked == ["a b", "c"], "another process finds it on disk"


def test_only_the_rows_of_the_prompt_are_stored(tmp_path):
    remembered(Encoder(), tmp_path)("one two three")
    (path,) = files(tmp_path)
    assert load_file(path)["rows"].shape == (4, WIDTH) and path.stat().st_size < 400


def test_prompts_are_known_by_what_is_left_after_cleaning(tmp_path):
    encoder = Encoder()
    known = remembered(encoder, tmp_path)
    known("a  &amp;amp;  b")
    known("a & b ")
    assert encoder.asked == ["a & b"], "cleaned once, here"


@pytest.mark.parametrize("change", [{"key": "another checkpoint"}, {"length": 8}])
def test_another_encoder_shares_nothing(tmp_path, change):
    encoder = Encoder()
    remembered(encoder, tmp_path)("a b")
    options = {"key": "tiny", "length": LENGTH, **change}
    other = Embeddings(encoder, torch.as_tensor, width=WIDTH,
                       disk=Store(tmp_path), **options)  # fmt: skip
    other("a b")
    assert len(encoder.asked) == 2 and len(files(tmp_path)) == 2


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def other_width(path):
    save_file({"rows": np.ones((3, WIDTH + 1), np.float32)}, path)


def other_key(path):
    save_file({"columns": np.ones((3, WIDTH), np.float32)}, path)


def other_dtype(path):
    save_file({"rows": np.ones((3, WIDTH), np.float16)}, path)


@pytest.mark.parametrize("damage", [cut, other_width, other_key, other_dtype, lambda p: p.write_bytes(b"")])
def test_a_broken_file_is_made_anew(tmp_path, damage):
    encoder = Encoder()
    remembered(encoder, tmp_path)("a b")
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    damage(path)
    assert torch.equal(remembered(encoder, tmp_path)("a b").rows, Encoder()("a b").rows)
    assert len(encoder.asked) == 2 and files(tmp_path) == [path] and path.read_bytes() == whole


def test_the_least_recently_used_go_first(tmp_path):
    encoder, names = Encoder(), {}
    for i, prompt in enumerate(["a a a", "b b b", "c c c"]):
        before = set(files(tmp_path))
        remembered(encoder, tmp_path)(prompt)
        (names[prompt],) = set(files(tmp_path)) - before
        os.utime(names[prompt], (1000 + i, 1000 + i))
    size = names["a a a"].stat().st_size
    remembered(encoder, tmp_path)("a a a")  # used again, now the newest
    remembered(encoder, tmp_path, limit=3 * size)("d d d")
    assert not names["b b b"].exists() and names["a a a"].exists() and len(files(tmp_path)) == 3
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 3 * size
    remembered(encoder, tmp_path, limit=size // 2)("e e e")
    assert len(files(tmp_path)) == 3, "larger than all that may be kept: not kept"


def test_files_appear_whole_and_leftovers_are_cleared(tmp_path, monkeypatch):
    old, young = tmp_path / "x.1.part", tmp_path / "y.2.part"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * store.STALE,) * 2)
    moved, real = [], os.replace
    monkeypatch.setattr(store.os, "replace", lambda a, b: moved.append((Path(a).suffix, b.exists())) or real(a, b))
    remembered(Encoder(), tmp_path)("a")
    assert moved == [(".part", False)]
    assert [p.suffix for p in files(tmp_path)] == [".safetensors", ".part"] and young.exists()


def test_a_disk_that_fails_costs_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    encoder = Encoder()
    known = remembered(encoder, tmp_path / "file" / "cache")
    assert all(torch.equal(known("a b").rows, Encoder()("a b").rows) for _ in range(2))
    assert encoder.asked == ["a b"] and "not kept" in caplog.text


def test_what_is_not_finite_is_not_kept_on_disk(tmp_path):
    remembered(lambda prompt: Embedding(torch.full((1, 3, WIDTH), torch.nan), LENGTH), tmp_path)("a")
    assert not files(tmp_path)


def test_memory_is_bounded_too():
    encoder = Encoder()
    known = Embeddings(encoder, torch.as_tensor, key="", length=LENGTH, width=WIDTH, limit=4 * 3 * WIDTH * 4)
    for prompt in ("a b", "c d", "e f", "g h", "a b", "i j", "a b", "c d"):
        known(prompt)
    assert encoder.asked == ["a b", "c d", "e f", "g h", "i j", "c d"]


def test_the_fingerprint_follows_the_files(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    before = fingerprint(file)
    assert fingerprint(file) == before
    os.utime(file, (5, 5))
    touched = fingerprint(file)
    file.write_bytes(b"three")
    assert len({before, touched, fingerprint(file)}) == 3


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path / "here"))
    assert folders.cache_folder() == tmp_path / "here" and not (tmp_path / "here").exists()
    for off in ("off", "0", "None"):
        monkeypatch.setenv("HELIOS_CACHE", off)
        assert folders.cache_folder() is None
    monkeypatch.delenv("HELIOS_CACHE")
    assert folders.cache_folder().name in ("helios-video", "cache")


def test_doctor_names_the_cache_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HELIOS_CACHE", str(tmp_path / "here"))
    main(["doctor"])
    assert f"set HELIOS_CACHE to change it, or to off)\n  {tmp_path / 'here'}\n" in capsys.readouterr().out


def test_comfyui_keeps_them_in_its_user_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("HELIOS_CACHE", raising=False)
    assert host.cache_folder() == folders.cache_folder()
    paths = ModuleType("folder_paths")
    paths.get_user_directory = lambda: str(tmp_path / "user")
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    assert host.cache_folder() == tmp_path / "user" / "helios"
    monkeypatch.setenv("HELIOS_CACHE", "off")
    assert host.cache_folder() is None and not list(tmp_path.iterdir())


@pytest.fixture
def large(monkeypatch, tmp_path):
    """helios-tiny as if its text encoder were large: a function that opens it, counting how often the encoder loads."""
    monkeypatch.setattr(embeddings, "WORTH", 0)

    def open_tiny(cache_folder=tmp_path / "cache"):
        model = load(cache_folder=cache_folder)
        model.loads = []
        real = model.backend.load_text_encoder
        monkeypatch.setattr(model.backend, "load_text_encoder", lambda *a, **k: model.loads.append(1) or real(*a, **k))
        return model

    return open_tiny


def film(model, prompt="a red circle", **options):
    *_, done = model.generate(prompt, **{"frames": 33, "seed": 1, "steps": (1, 1, 1), "cfg": 2.0, **options})
    return done.latent


def test_with_all_prompts_known_the_text_encoder_is_never_loaded(large, tmp_path):
    first = large()
    latent = film(first)
    assert len(first.loads) == 1 and len(files(tmp_path / "cache" / "prompts")) == 2, (
        "the prompt and the empty negative"
    )
    second = large()
    assert torch.equal(film(second), latent) and second.loads == []
    assert "text_encoder" not in second.parts.loaded.networks
    film(second, "a blue square")
    assert len(second.loads) == 1


def test_v1_another_prompt_is_another_embedding(large):
    known = large()
    red, blue = known.text("a red circle"), known.text("a blue square")
    assert not torch.equal(red.padded, blue.padded) and torch.equal(large().text("a red circle").rows, red.rows)


def test_switched_off_nothing_is_written(large, tmp_path):
    film(large(cache_folder=None))
    assert not files(tmp_path / "cache")


def test_a_small_encoder_is_not_worth_the_disk(tmp_path):
    model = load(cache_folder=tmp_path / "cache")
    model.text("a red circle")
    assert model.embeddings.disk is None and not files(tmp_path / "cache")
    assert sum(p.stat().st_size for p in (TINY / "text_encoder").iterdir()) < embeddings.WORTH


def test_nothing_is_encoded_that_is_not_used(large, monkeypatch):
    """Without guidance there is no negative; with guidance and none given, the empty prompt is encoded once."""
    model = large()
    encoder, asked = model.parts.text_encoder, []
    monkeypatch.setattr(model.parts, "release", lambda *names: None)
    model.parts.loaded.networks["text_encoder"] = lambda prompt: asked.append(prompt) or encoder(prompt)
    film(model, cfg=1.0, negative="grey")
    assert asked == ["a red circle"]
    text, history = model.text("a red circle"), model.history(64, 64)
    for _ in range(2):
        *_, step = model.sample(history, text, seed=0, cfg=2.0, steps=(1, 1, 1))
        history = history.append(step.latent)
    assert asked == ["a red circle", ""]


def test_several_videos_ahead(large):
    """All prompts with one load of the encoder, which is gone before the first video."""
    model = large(cache_folder=None)
    model.encode_ahead(["a red circle", "a blue square"], [""], cfg=2.0)
    assert len(model.loads) == 1 and "text_encoder" not in model.parts.loaded.networks
    film(model), film(model, "a blue square")
    assert len(model.loads) == 1
