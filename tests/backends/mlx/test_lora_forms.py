"""LoHa, LoKr, LoCon and DoRA on MLX, against float64 by hand."""

from __future__ import annotations

import pytest
from helios_video.helios_core.lora import changes as lora_changes
from helios_video.helios_core.with_loras import read_files
from support.lora_forms import ANY, KERNELS, LENGTHS, in_form, weights, with_lengths
from support.loras import BLOCKS, CONFIG, OUTSIDE, PATCHES, SAME, SHAPES, SIZES, make_model
from support.loras import run as run_torch
from support.loras import run_mlx as run
from support.loras import write as write_lora
from support.mlx import error, load, write

pytest.importorskip("mlx.core", reason="mlx is not installed")

from helios_video.helios_core.backends import mlx as adapter  # noqa: E402
from helios_video.helios_core.backends.mlx import load as mlx_load  # noqa: E402

CASES = [(make, [*BLOCKS, *OUTSIDE]) for make in ANY.values()]
CASES += [(make, [*PATCHES, "patch_embedding"]) for make in KERNELS.values()]


@pytest.fixture(scope="module")
def state():
    return {name: p.clone() for name, p in make_model(fuse=False).state_dict().items()}


@pytest.fixture(scope="module")
def base(state, tmp_path_factory):
    return load(write(tmp_path_factory.mktemp("base"), state, SIZES), mlx_load)


def changed(model, loras, merge=False):
    files = read_files(loras, CONFIG, SHAPES)
    return adapter.adapt(model, lora_changes.read_changes(files, None, CONFIG, SHAPES), merge=merge)


def named(value):
    return value.__name__ if callable(value) else value[0] if isinstance(value, list) else None


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("make,layers", CASES, ids=named)
def test_every_form_gives_its_weights(make, layers, merge, tmp_path, base, state):
    tensors, changes = in_form(make, layers)
    got = run(changed(base, [(write_lora(tmp_path, tensors), 0.7)], merge))
    want = run_torch(make_model(weights(state, changes, 0.7)))
    print(f"{make.__name__} {'merged' if merge else 'applied'}: {error(got, want):.1e}")
    assert error(got, want) < SAME < 1e-3 < error(want, run(base))


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("make,layers", [CASES[0], CASES[1], CASES[3], CASES[6], CASES[7]], ids=named)
def test_dora_of_every_form(make, layers, kind, tmp_path, base, state):
    tensors, changes = in_form(make, layers)
    tensors, lengths = with_lengths(tensors, layers, kind)
    got = run(changed(base, [(write_lora(tmp_path, tensors), 0.4)]))
    want = run_torch(make_model(weights(state, changes, 0.4, lengths)))
    print(f"{make.__name__} DoRA {kind}: {error(got, want):.1e}")
    assert error(got, want) < SAME < 1e-3 < error(want, run(base))
