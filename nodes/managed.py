"""What ComfyUI's engine does not build by itself, under its management: VAEs, text encoders and diffusion decoders.

Each is a ModelPatcher in ComfyUI's list of loaded models: other models make room for it, and it for others. They move
as wholes. Nothing here holds a network: it lives and dies with its pipeline. The video model: engine.py.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from weakref import WeakKeyDictionary, ref

from ..helios_core.devices import Host
from . import core, host, live

logger = logging.getLogger(__name__)


class ComfyHost(Host):
    """ComfyUI's say over a pipeline's devices and memory, and the user's Stop. On MLX memory is the system's."""

    def __init__(self, management, library: str):
        self.management, self.torch = management, library == "torch"
        self.keeper = Keeper(management) if self.torch else None

    @property
    def manages(self) -> bool:
        """As Host has it: on torch."""
        return self.torch

    def device(self, own):
        """As Host has it."""
        return self.management.get_torch_device() if self.torch else own

    def place(self, name: str, device):
        """As Host has it: the devices that ComfyUI keeps VAEs and text encoders on."""
        if not self.torch or name == "transformer":
            return device
        return {"vae": self.management.vae_device, "text_encoder": self.management.text_encoder_device}[name]()

    def loading(self, nbytes: int) -> None:
        """Has ComfyUI make room for so many bytes."""
        free(self.management, nbytes)

    @contextmanager
    def reading(self, what: str, total: int):
        """As Host has it: a bar on the node and on the console; each step of it is a cancel point."""
        with live.reading(what, total) as report:

            def told(done: int, total: int) -> None:
                self.stop()
                report(done, total)

            yield told

    def using(self, name: str, network, work: int) -> None:
        """Has ComfyUI bring a part to its device. The video model comes by its MODEL."""
        if self.keeper is not None and name != "transformer":
            self.keeper(name, network, work)

    def stop(self) -> None:
        """Ends the run where the user stopped it."""
        self.management.throw_exception_if_processing_interrupted()


class Runner(Host):
    """The workflow runner's say."""

    def reading(self, what: str, total: int):
        """As Host has it."""
        return core.devices.bar(what, total)


def host_of(backend: str) -> Host:
    """What a pipeline on that backend (auto, torch, mlx) is told by ComfyUI; without it, nothing."""
    management = host.comfy("comfy.model_management")
    return Runner() if management is None else ComfyHost(management, core.devices.choose(backend))


def announce(helios) -> None:
    """Logs what a pipeline needs that was just opened. On MLX, ComfyUI's own models make room for it."""
    needs = helios.parts.estimate()
    if helios.parts.host.manages:
        weights, work = (
            ", ".join(f"{name.replace('_', ' ')} {size / 2**30:.1f}" for name, size in found.items())
            for found in (needs.parts, needs.work)
        )
        logger.info("Helios: weights in GiB: %s; each computes in: %s", weights, work)
        return
    helios.parts.host.loading(needs.device("none"))
    log_needs(helios)


def log_needs(helios, width: int = 0, height: int = 0) -> None:
    """Logs what videos of that size need, the checkpoint's own if left open, and warns where that does not fit. Not
    where ComfyUI moves the parts."""
    for line in () if helios.parts.host.manages else helios.parts.needs(width, height):
        logger.log(logging.WARNING if line.startswith(core.devices.WARNING) else logging.INFO, "%s", line)


def adopt_codec(codec) -> None:
    """The same for a diffusion decoder and its encoder, which are managed as a VAE is."""
    management = host.comfy("comfy.model_management")
    if management is not None and codec.backend_name == "torch":
        codec.device, codec.on_use = management.vae_device(), Keeper(management)


def free(management, nbytes: int) -> None:
    """Has so many bytes of the device freed."""
    management.free_memory(nbytes, management.get_torch_device())
    management.soft_empty_cache()


class Keeper:
    """What a pipeline calls before a part computes: ComfyUI brings it to its device and makes room for the work."""

    def __init__(self, management):
        self.management = management
        self.patchers: WeakKeyDictionary = WeakKeyDictionary()

    def __call__(self, name: str, component, work: int) -> None:
        network = getattr(component, "model", component)
        if network not in self.patchers:
            self.patchers[network] = self._patcher(name, network)
        self.management.load_models_gpu([self.patchers[network]], memory_required=work)

    def _patcher(self, name: str, network):
        from comfy.model_patcher import ModelPatcher

        kind = type("HeliosPatcher", (Component, ModelPatcher), {})
        on, away = {
            "vae": (self.management.vae_device, self.management.vae_offload_device),
            "text_encoder": (lambda: network.device, self.management.text_encoder_offload_device),
        }[name]
        return kind(network, on(), away())


class Component:
    """What a ModelPatcher does otherwise for a network of ours: it moves as a whole. Sizes are read off its tensors."""

    @property
    def model(self):
        """The network, held weakly."""
        return self._network()

    @model.setter
    def model(self, network):
        self._network = ref(network)

    def model_size(self) -> int:
        """Bytes of the whole."""
        return _offload().size(self.model)

    def loaded_size(self) -> int:
        """Bytes on the device."""
        return _offload().occupied(self.model, self.load_device)

    def current_loaded_device(self):
        """Where it is."""
        return self.load_device if self.loaded_size() else self.offload_device

    def partially_load(self, device_to, extra_memory=0, force_patch_weights=False, **_) -> int:
        """Brings the network to its device. The bytes that came."""
        if not self._moves():
            return 0
        before = self.loaded_size()
        if before < self.model_size():
            _offload().place(self.model, device_to)
        return self.loaded_size() - before

    def partially_unload(self, device_to, memory_to_free=0, **_) -> int:
        """0 bytes: half of it is of no use."""
        return 0

    def detach(self, unpatch_all=True):
        """Moves the network away; or, if not unpatch_all, only forgets it."""
        if unpatch_all and self.model is not None and self._moves():
            _offload().place(self.model, self.offload_device)
        return self.model

    def _moves(self) -> bool:
        return self.load_device != self.offload_device


def _offload():
    from ..helios_core.backends.torch import offload

    return offload
