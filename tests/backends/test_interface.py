"""Both backends are what interface.py says: every name there, called alike, and no name that it does not know."""

from __future__ import annotations

import inspect
from importlib import import_module, util

import pytest
from helios_video.helios_core.backends import interface
from helios_video.helios_core.config.model import TransformerConfig, VAEConfig
from support.transformer import SIZES
from support.ul import IMAGE

DOORS = ["torch", "mlx"]
NETWORKS = {
    interface.Transformer: ("transformer", "HeliosTransformer", (TransformerConfig(**SIZES),)),
    interface.VAE: ("vae", "WanVAE", (VAEConfig(base_dim=8),)),
    interface.TextEncoder: ("text", "UMT5TextEncoder", (None, len)),
    interface.ULModel: ("ul", "UL", (IMAGE, ("encoder", "decoder"))),
}


@pytest.fixture(params=DOORS)
def door(request):
    """A backend's package."""
    if util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return import_module(f"helios_video.helios_core.backends.{request.param}")


def members(protocol) -> dict:
    """Names that a protocol has: attributes as None, methods and properties as they are."""
    own = {k: v for k, v in vars(protocol).items() if not k.startswith("_") or k == "__call__"}
    return dict.fromkeys(inspect.get_annotations(protocol)) | own


def parameters(function, *, bound: bool) -> list:
    """Names and kinds. bound: without self."""
    found = list(inspect.signature(function).parameters.values())
    return [(p.name, p.kind) for p in found[1 if bound else 0 :]]


def optional(function) -> set[str]:
    return {p.name for p in inspect.signature(function).parameters.values() if p.default is not p.empty}


def agree(wanted, got, *, bound: bool) -> None:
    """A method and what stands for it: the same parameters, and what may be left out there may be left out here."""
    assert parameters(got, bound=bound) == parameters(wanted, bound=True), wanted.__qualname__
    assert optional(wanted) <= optional(got), wanted.__qualname__


def test_a_door_hands_on_what_a_backend_is_and_nothing_else(door):
    assert set(door.__all__) == set(members(interface.Backend))


@pytest.mark.parametrize("name", members(interface.Backend))
def test_a_backend_is_called_alike(door, name):
    wanted, got = members(interface.Backend)[name], getattr(door, name)
    if wanted is not None:
        agree(wanted, got, bound=False)


def test_inference_is_a_context_and_decorates(door):
    with door.inference():
        pass

    @door.inference()
    def steps():
        yield from (1, 2)

    assert [*steps()] == [1, 2]


@pytest.mark.parametrize("protocol", NETWORKS)
def test_networks_are_called_alike(door, protocol):
    module, name, given = NETWORKS[protocol]
    kind = getattr(import_module(f"{door.__name__}.{module}"), name)
    network = kind(*given)
    for member, wanted in members(protocol).items():
        got = inspect.getattr_static(kind, member, None)
        assert hasattr(network, member), member
        if inspect.isfunction(wanted):
            agree(wanted, got, bound=True)
        elif wanted is not None:
            assert isinstance(got, property), member


@pytest.mark.parametrize("protocol", [interface.Backend, *NETWORKS])
def test_every_member_says_what_it_promises(protocol):
    """A method in its own words, an attribute in those of its class, where it could be doubted."""
    assert protocol.__doc__
    silent = [name for name, member in members(protocol).items() if member is not None and not member.__doc__]
    assert not silent


def test_a_door_with_another_way_in_is_noticed():
    """That the comparison sees what it is for: a name, a kind, a default, an order."""

    class Wanted:
        def run(self, a, *, b=1): ...

    for other in (
        lambda a, *, c=1: 0,
        lambda a, b=1: 0,
        lambda a, *, b: 0,
        lambda b=1, *, a: 0,
        lambda a, *, b=1, c: 0,
    ):
        with pytest.raises(AssertionError):
            agree(Wanted.run, other, bound=False)
    agree(Wanted.run, lambda a, *, b=2: 0, bound=False)
