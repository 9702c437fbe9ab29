"""The video model on ComfyUI's own engine: a MODEL that its memory management moves and its LoRA loaders patch.

The network is the core's (backends/torch), built from the layers of `comfy.ops`, inside a BaseModel, under ComfyUI's
ModelPatcher. A chunk is sampled by the core's loop, which is given the patched network (`Running`).
"""

from __future__ import annotations

import json
import logging
from functools import cache

from ..helios_core.checkpoint.headers import SAID
from ..helios_core.devices import Parts
from ..helios_core.pipeline import Helios
from . import core, host, sockets
from .engine_digest import named, patches_digest

LOG = logging.getLogger(__name__)
UNUSED = ("model_function_wrapper", "sampler_cfg_function", "sampler_post_cfg_function", "sampler_pre_cfg_function")
UNUSED += ("sampler_calc_cond_batch_function", "denoise_mask_function")
UNUSED_PATCHES = ("patches", "patches_replace", "rope_options", "context_handler")
CONTROLS = "helios_controls"
SAMPLER = "only Helios DMD Pyramid Sample samples Helios: other samplers know neither its history nor its pyramid"


def open_model(helios: Helios, vae, disable_dynamic: bool = False):
    """The ModelPatcher of a pipeline's video model, its weights read from the files; on torch, in ComfyUI.

    vae: what goes along with it, for those who wire none. disable_dynamic: as ComfyUI asks for it, where a node cannot
    have weights that come and go.
    """
    import comfy.model_management as management
    import comfy.model_patcher as patching

    from . import engine_keys, engine_layers

    device, away = management.get_torch_device(), management.unet_offload_device()
    network = engine_layers.load_network(helios, device)
    kind = patching.ModelPatcher if disable_dynamic else getattr(patching, "CoreModelPatcher", patching.ModelPatcher)
    patcher = kind(model_class()(helios, vae, network, away), load_device=device, offload_device=away)
    patcher.cached_patcher_init = (open_model, (helios, vae))
    engine_keys.teach(model_class())
    return patcher


@cache
def model_class():
    """ComfyUI's BaseModel, with our network. A class made when it is first needed: its base is ComfyUI's."""
    import comfy.model_base as base
    from comfy.patcher_extension import WrapperExecutor

    class HeliosModel(base.BaseModel):
        """helios: the pipeline that it belongs to, with VAE and text encoder."""

        def __init__(self, helios: Helios, vae, network, device):
            super().__init__(model_config(network.dtype), base.ModelType.FLOW, device=device)
            self.helios, self.vae, self.diffusion_model = helios, vae, network

        def velocity(self, wrappers, options, x, t, text, history):
            """The network's, through what nodes have wrapped around it, such as a compiled form of it."""
            run = WrapperExecutor.new_class_executor(self._velocity, self, wrappers)
            return run.execute(x, t, None, text, None, options, history=history)

        def _velocity(self, x, t, _, text, __, options, history):
            return self.diffusion_model(x, t, text, history)

        def _apply_model(self, *_, **__):
            raise ValueError(SAMPLER)

        def state_dict_for_saving(self, *args, **kwargs):
            """ComfyUI's, and what the checkpoint's JSON files say, so that the file can be loaded by itself."""
            state = super().state_dict_for_saving(*args, **kwargs)
            if not all(getattr(layer, "savable", True) for layer in self.diffusion_model.modules()):
                raise ValueError(
                    "layers in rotated or grouped forms that this ComfyUI does not know cannot "
                    "be saved: copy the model's own file, or load it as bf16 and save that"
                )
            return state | {f"model.diffusion_model.{SAID}": documents(self.helios.checkpoint)}

        def memory_required(self, input_shape, **_) -> int:
            """Bytes that a chunk computes in; input_shape: of its latents [b c t h w]."""
            scale = self.helios.config.vae.scale_factor_spatial
            width, height = (n * scale for n in (input_shape[-1], input_shape[-2]))
            return self.helios.parts.estimate(width, height, input_shape[0]).work["transformer"]

    return HeliosModel


def documents(checkpoint):
    """The JSON files of a checkpoint, as a tensor of the text that `headers.read_metadata` reads."""
    import torch

    texts = core.convert.read_texts(checkpoint.path, {"transformer": checkpoint.sources["transformer"]})
    text = json.dumps({core.checkpoint.DOCUMENTS: json.dumps(texts)}).encode()
    return torch.tensor(list(text), dtype=torch.uint8)


def model_config(dtype):
    """What a BaseModel wants to know of its architecture."""
    from comfy.latent_formats import Wan21
    from comfy.supported_models_base import BASE

    class Config(BASE):
        """Of no architecture that ComfyUI builds by itself."""

        unet_config: dict = {}
        unet_extra_config: dict = {}
        latent_format = Wan21
        supported_inference_dtypes = [dtype]

    made = Config({"disable_unet_model_creation": True})
    made.set_inference_dtype(dtype, None)
    return made


class HostParts(Parts):
    """A pipeline's parts of which ComfyUI keeps the video model. patcher: with what nodes have changed in it."""

    def __init__(self, patcher):
        own = patcher.model.helios.parts
        super().__init__(own.checkpoint, own.library, own.choices, own.host, None, own.loaded)
        self.patcher = patcher

    @property
    def identity(self) -> tuple | None:
        """As Parts has it, and what patches it; None where a node has wrapped it in what only the node knows."""
        wrapped = [key for kind in self.patcher.wrappers.values() for key, found in kind.items() if found]
        if any(key != "torch.compile" for key in wrapped):
            return None
        attention = self.patcher.model_options["transformer_options"].get("optimized_attention_override")
        return *super().identity, patches_digest(self.patcher), attention and named(attention)

    def ready(self, name: str, width: int = 0, height: int = 0, batch: int = 1):
        """As Parts has it."""
        if name != "transformer":
            return super().ready(name, width, height, batch)
        import comfy.model_management as management

        work = self.estimate(width, height, batch).work["transformer"]
        models = [self.patcher, *getattr(self.patcher, "get_nested_additional_models", list)()]
        management.load_models_gpu(models, memory_required=work)
        return Running(self.patcher, self.host.stop)


class Running:
    """A loaded MODEL as the core's sampling takes a transformer (backends/interface.py)."""

    def __init__(self, patcher, stop):
        from comfy.patcher_extension import WrappersMP

        self.model = patcher.model
        self.network = self.model.diffusion_model
        self.config, self.on_block = self.network.config, stop
        self.options = patcher.model_options["transformer_options"]
        self.wrappers = patcher.get_all_wrappers(WrappersMP.APPLY_MODEL)
        self.network.begin(patcher, stop)
        tell_unused(patcher)

    @property
    def dtype(self):
        """The type of its matrix products."""
        return self.network.dtype

    def array(self, values):
        """Numbers of any library as float32, where the model computes."""
        return self.network.array(values)

    def text_context(self, embedding):
        """As the network has it."""
        return self.network.text_context(embedding)

    def history_context(self, parts):
        """As the network has it."""
        return self.network.history_context(parts)

    def velocity(self, x, t: float, text, history=None):
        """As the network has it, through ComfyUI's wrappers."""
        import torch

        t = torch.full((1,), t, device=self.network.device)
        return self.model.velocity(self.wrappers, self.options, x, t, text, history)

    def velocities(self, x, t: float, texts, history=None) -> list:
        """The same for several prompts."""
        return [self.velocity(x, t, text, history) for text in texts]

    def forget(self) -> None:
        """Drops what is kept of prompts and sizes."""
        self.network.forget()


def pipeline(model) -> Helios:
    """The pipeline of a MODEL: HeliosLoader's, with what other nodes have done to it. ValueError for other models."""
    if hasattr(model, "parts"):
        return model
    inner = getattr(model, "model", None)
    if hasattr(inner, "helios"):
        return inner.helios.with_parts(HostParts(model)).controlled(model.get_attachment(CONTROLS) or ())
    found = type(inner if inner is not None else model).__name__
    raise ValueError(f"model: this MODEL is {found}, not Helios; wire in that of HeliosLoader")


class Alone(Helios):
    """A pipeline as MODEL that ComfyUI's engine does not run, as on MLX: what ComfyUI's own nodes look for on a MODEL
    it answers with why it has none."""

    @classmethod
    def of(cls, helios: Helios) -> Alone:
        """The same pipeline."""
        return cls(helios.checkpoint, helios.parts, helios.embeddings, helios.controls)

    def with_parts(self, parts: Parts) -> Alone:
        """As Helios has it."""
        return type(self)(self.checkpoint, parts, self.embeddings, self.controls)

    def __getattr__(self, name: str):
        raise AttributeError(
            f"this MODEL is Helios on MLX, outside ComfyUI's own engine, and has no {name!r}: Helios' own nodes alone "
            "take it. For this node choose the backend torch in HeliosLoader"
        )


def sockets_of(helios: Helios) -> tuple:
    """What the outputs MODEL and VAE give of a pipeline: in ComfyUI, on torch, objects of ComfyUI's own engine where it
    has them; else the pipeline itself, and its VAE behind ComfyUI's interface."""
    if not helios.parts.host.manages:
        alone = Alone.of(helios) if host.present() and isinstance(helios, Helios) else helios
        return alone, sockets.VAESocket(helios)
    from . import engine_vae

    vae = engine_vae.open_vae(helios) if engine_vae.known(helios.config.vae) else sockets.VAESocket(helios)
    return open_model(helios, vae), vae


def vae_of(model):
    """The VAE that came with a MODEL from HeliosLoader; None where the pipeline has its own."""
    return getattr(getattr(model, "model", None), "vae", None)


def with_loras(model, files, *, mode: str, companion=None) -> tuple:
    """(The model with LoRAs, what they change as text); the one given stays as it is. files: with strengths."""
    helios = pipeline(model)
    if helios is not model:
        from .engine_lora import with_loras as patched

        return patched(model, files, companion)
    from ..helios_core.with_loras import with_loras as applied

    changed = applied(helios, files, mode=mode, companion=companion)
    return changed, changed.parts.loras.report


def tell_unused(patcher) -> None:
    """Says once per model which of its patches Helios takes no notice of."""
    options = patcher.model_options
    found = [name for name in UNUSED if options.get(name)]
    found += [name for name in UNUSED_PATCHES if options["transformer_options"].get(name)]
    if found and getattr(patcher, "helios_told", None) != found:
        patcher.helios_told = found
        LOG.warning("this MODEL carries %s, which Helios does not use", ", ".join(found))
