"""The core's transformer built from ComfyUI's layers, and its weights read into them. Imported in ComfyUI, on torch."""

from __future__ import annotations

import json
from importlib.util import find_spec
from types import SimpleNamespace

import comfy.ops
import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import nn

from ..helios_core.backends.torch import products
from ..helios_core.backends.torch.ahead import Ahead
from ..helios_core.backends.torch.attention import gains_by_splitting, with_padding
from ..helios_core.backends.torch.files import STORED, Files
from ..helios_core.backends.torch.layers import Layers
from ..helios_core.backends.torch.load import CPU, choose_dtype
from ..helios_core.backends.torch.quant import place
from ..helios_core.backends.torch.quantising import WEIGHT
from ..helios_core.backends.torch.transformer import SAMPLED, HeliosTransformer
from ..helios_core.backends.torch.weights import quant_layer
from ..helios_core.checkpoint import find_kind, is_float32, is_kept, is_quantised, tell
from .engine_quant import GELU, HostBlockLinear, HostQuantLinear, brought, moved

HAS_FP8 = hasattr(comfy.ops, "mixed_precision_ops") and hasattr(comfy.ops, "_load_quantized_module")
PREFETCH = "prefetch_dynamic_vbars"  # the key in transformer_options by which ComfyUI lets a network ask ahead


class Context:
    """What the running MODEL says: the type of its products, and transformer_options for the attention. splits: whether
    torch's flash attention takes a prompt's padding apart from its tokens."""

    def __init__(self, dtype: torch.dtype):
        self.dtype, self.options, self.splits = dtype, {}, False


def host_layers(context: Context, device):
    """The `layers.Layers` of ComfyUI: weights are cast to the context's type, moved and patched as they are used."""
    plain = comfy.ops.manual_cast
    mixed = mixed_layers(context.dtype, device) if HAS_FP8 else plain

    class HostAffine(plain.Linear):
        """A linear layer of the embeddings and of the output."""

        dtype = property(lambda _: context.dtype)

    class HostLinear(mixed.Linear):
        """A linear layer of attention and feed-forward; its weight may be in ComfyUI's quantised forms."""

        dtype = property(lambda _: context.dtype)

        def forward(self, x, gelu: bool = False):
            """x [... i] -> [... o]; gelu: then GELU."""
            y = super().forward(x)
            return nn.functional.gelu(y, **GELU) if gelu else y

    class HostQKNorm(plain.RMSNorm):
        """The gains of a norm that attention computes together with its rotation."""

        def gain(self, device):
            """[d] float32, on that device, patched."""
            with brought(self, torch.float32, device, torch.float32) as (weight, _):
                return weight.clone() if weight.device != self.weight.device else weight

    chosen = {"Linear": HostLinear, "Affine": HostAffine, "QKNorm": HostQKNorm, "Conv3d": plain.Conv3d}
    chosen |= {"LayerNorm": plain.LayerNorm, "attention": staticmethod(host_attention(context)), "separate": True}
    return type("HostLayers", (Layers,), chosen)


def host_attention(context: Context):
    """Attention as `kernels.attention` has it, by the way that ComfyUI or a node has chosen; a prompt's padding by
    torch's own: of ComfyUI's ways some drop a mask, and others complain of it at every call."""

    def chosen(q, k, v):
        kept = {"skip_reshape": True, "skip_output_reshape": True, "transformer_options": context.options}
        return optimized_attention(q, k, v, q.shape[1], **kept)

    ways = {split: with_padding(chosen, split) for split in (True, False)}
    return lambda q, k, v, bias=None: ways[context.splits](q, k, v, bias)


def mixed_layers(dtype: torch.dtype, device):
    """ComfyUI's layers for its quantised forms. It switches those off that the device cannot multiply, and widens."""
    quantised = SimpleNamespace(quant_config={"mixed_ops": True})
    return comfy.ops.pick_operations(None, dtype, load_device=device, model_config=quantised)


class HostTransformer(HeliosTransformer):
    """The transformer whose weights ComfyUI keeps: where they are says nothing of where it computes."""

    def __init__(self, config, compute: torch.dtype, device):
        self.context, self.own_dtype = Context(compute), compute
        super().__init__(config, host_layers(self.context, device))
        self.computes_on = device

    @property
    def device(self):
        """Where it computes."""
        return self.computes_on

    def begin(self, patcher, stop) -> None:
        """Before a chunk. What was kept of prompts under other patches is not known any more."""
        self.computes_on, self.on_block = patcher.load_device, stop
        self.context.options = {**patcher.model_options["transformer_options"], PREFETCH: prefetches(patcher)}
        self.context.dtype = patcher.get_model_object("manual_cast_dtype") or self.own_dtype
        about = torch.device(self.device), self.context.dtype, self.config.attention_head_dim
        self.context.splits = gains_by_splitting(*about)
        if self.version == (patcher.patches_uuid, self.device):
            return
        self.version = patcher.patches_uuid, self.device
        scaled = products.chosen("auto", self.device, "fp8_e4m3fn")
        product = products.Product(products.FP8, torch.device(self.device)) if scaled else None
        for name, layer in self.named_modules():
            if isinstance(layer, HostQuantLinear):
                layer.key = f"diffusion_model.{name}.{WEIGHT}"
                layer.patches = moved(patcher.patches.get(layer.key, []), self.device)
                layer.product = product if layer.is_fp8 and not layer.patches else None

    def each_block(self, *parts: str):
        """The blocks in order; where ComfyUI streams their weights, the next one's are on their way meanwhile."""
        if parts == SAMPLED and self.context.options.get(PREFETCH):
            return self._prefetched()
        return super().each_block(*parts)

    def _prefetched(self):
        from comfy import model_prefetch

        queue = model_prefetch.make_prefetch_queue(list(self.blocks), self.device, self.context.options)
        for block in self.blocks:
            model_prefetch.prefetch_queue_pop(queue, self.device, block)
            yield block
        model_prefetch.prefetch_queue_pop(queue, self.device, None)

    def text_weights(self) -> list:
        """None: they come and go. `version` says what they are."""
        return []


def prefetches(patcher) -> bool:
    """Whether its weights come and go by ComfyUI's dynamic VRAM, which can be asked ahead for them."""
    return getattr(patcher, "is_dynamic", bool)() and find_spec("comfy.model_prefetch") is not None


def load_network(helios, device) -> HostTransformer:
    """A pipeline's transformer, its weights in host memory or, where they are used as stored, mapped from the files.

    Quantising is done on `device`, layer by layer.
    """
    return helios.parts.read_transformer(lambda source: read_network(helios, source, device))


def read_network(helios, source, device) -> HostTransformer:
    """The same of one source."""
    choice = helios.parts.choices.weight_dtype
    kind = find_kind(source, choice)
    dtype = choose_dtype(source, "auto" if choice == kind else choice, device)
    with torch.device("meta"):
        network = HostTransformer(helios.config.transformer, dtype, device)
    files, state = Files(source), {}
    for name in sorted(helios.backend.shapes(helios.config.transformer), key=lambda n: source.tensors[n][:2]):
        known = (
            choice == "auto" and is_quantised(name) and source.tensors[name].marks and host_form(source.tensors[name])
        )
        if known or is_kept(name, source.tensors[name], kind, choice):
            state |= quantised(network, name, source, files, kind, device)
        else:
            state[name] = files.read(source.tensors[name], torch.float32 if is_float32(name) else dtype, CPU)
        tell(source.tensors[name].whole)
    network.load_state_dict(state, strict=True, assign=True)
    network.ahead = Ahead.of(network.blocks, files.mapped)
    return network.requires_grad_(False).train(False)


def quantised(network, name: str, source, files: Files, kind: str, device) -> dict[str, torch.Tensor]:
    """What the state of the network holds of a quantised weight: in ComfyUI's form where ComfyUI knows that of the
    file, else in ours or in GGUF's, and then a HostQuantLinear stands in the layer's place."""
    stored, layer = source.tensors[name], name.removesuffix(WEIGHT)
    if host_form(stored):
        return {layer + part: value for part, value in host_parts(stored, files).items()}
    bias = files.read(source.tensors[f"{layer}bias"], network.dtype, CPU)
    kind_of_layer = HostBlockLinear if stored.in_gguf else HostQuantLinear
    made = quant_layer(kind_of_layer, name, stored, files, kind, device, bias).to(CPU)
    place(network, layer.removesuffix("."), made)
    return {layer + part: value for part, value in made.state_dict().items() if part != "bias"}


def host_form(stored) -> str | None:
    """The name that ComfyUI has for the form of a stored weight; None where it does not know it."""
    one = stored.scale is None or stored.scale.shape in ((), (1,))
    form = stored.marks.format if stored.marks else "float8_e4m3fn" if stored.dtype == "F8_E4M3" else None
    if not HAS_FP8 or form not in comfy.quant_ops.QUANT_ALGOS or (form.startswith("float8") and not one):
        return None
    return None if stored.marks and "weight_correction" in stored.marks.found else form  # it reads no corrections


def host_parts(stored, files: Files) -> dict[str, torch.Tensor]:
    """A stored weight and what belongs to it in ComfyUI, by the names after the layer's.

    What says nothing of products in fp8 is to have none. Factors have the shapes that ComfyUI's own files have.
    """
    form, parts = host_form(stored), stored.marks.found if stored.marks else {"weight_scale": stored.scale}
    said = stored.marks.said if stored.marks else json.dumps({"format": form, "full_precision_matrix_mult": True})
    found = {name: files.read(p.codes, STORED[p.dtype], CPU) for name, p in ({WEIGHT: stored} | parts).items() if p}
    if form.startswith("float8"):
        found["weight_scale"] = found.get("weight_scale", torch.tensor(1.0)).float().reshape(())
    elif form == "int8_tensorwise":
        scale = found["weight_scale"].float()
        found["weight_scale"] = scale.reshape(()) if scale.numel() == 1 else scale.reshape(-1, 1)
    return found | {"comfy_quant": torch.tensor(list(said.encode()), dtype=torch.uint8)}
