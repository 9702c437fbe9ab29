"""What a training step takes of a GPU's memory, counted before anything is loaded: the real network, its backward pass
included, on tensors without data, while a dispatch mode adds up what is alive.

Not seen: what CUDA itself and the libraries' kernels take, and what the allocator leaves unused: SPARE beside it all.
"""

from __future__ import annotations

import weakref
from dataclasses import astuple, dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...backends.torch.load import shapes
from ...backends.torch.quant import QuantLinear
from ...backends.torch.transformer import FLOAT32, HeliosTransformer
from ...checkpoint import group_size, is_quantised, split_kind
from ...config import ModelConfig, TransformerConfig
from ...history import History
from ...text import Embedding
from .adapters import attach, find_layers
from .checkpointed import checkpoint_blocks

SPARE = 1_500_000_000  # bytes
STATE = 12  # bytes per trained number beside itself and its gradient: AdamW's two moments, and the average
TOKENS = 128  # of a prompt, without padding


@dataclass(frozen=True)
class TrainingNeeds:
    """Bytes of the device. weights: the frozen base that stays there; trained: what learns, with gradients, moments and
    average; work: at most, of a step, beside these."""

    weights: int
    trained: int
    work: int

    @property
    def total(self) -> int:
        """All of it, with what cannot be counted."""
        return self.weights + self.trained + self.work + SPARE

    def describe(self) -> str:
        """A line for people."""
        parts = {"the base's weights": self.weights, "what is trained": self.trained, "a step": self.work}
        parts["CUDA and gaps (a guess)"] = SPARE
        said = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in parts.items())
        return f"{self.total / 1e9:.1f} GB of the GPU's memory ({self.total / 2**30:.1f} GiB): {said}"


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations made and that are still alive. known: tensors there were before."""

    def __init__(self, known: list[Tensor]):
        super().__init__()
        self.live = self.peak = 0
        self.seen = {t.untyped_storage()._cdata for t in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                self._count(t.untyped_storage())
        return out

    def _count(self, storage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.seen:
            return
        self.seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)

        def gone() -> None:
            self.seen.discard(key)
            self.live -= size

        weakref.finalize(storage, gone).atexit = False


class FlashLike(torch.autograd.Function):
    """Attention as a fused kernel holds it: the inputs, the result and a number per query; no logits."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[b h n d]."""
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Of all three."""
        return tuple(torch.empty_like(x) for x in ctx.saved_tensors[:3])


def flash_like(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `kernels.attention`."""
    return FlashLike.apply(q, k.expand(len(q), -1, -1, -1), v.expand(len(q), -1, -1, -1))


def meta_transformer(config: TransformerConfig, weight_dtype: str) -> HeliosTransformer:
    """The network without data, its linear layers in weight_dtype: bf16, fp16, fp32 or one of precision.KINDS."""
    plain = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    dtype = plain.get(weight_dtype, torch.bfloat16)
    with torch.device("meta"):
        model = HeliosTransformer(config)
        for name, parameter in model.named_parameters():
            if not any(part in name for part in FLOAT32):
                parameter.data = parameter.data.to(dtype)
        if weight_dtype not in plain:
            for name, parameter in list(model.named_parameters()):
                if is_quantised(name):
                    path = name.removesuffix(".weight")
                    parent, _, last = path.rpartition(".")
                    setattr(model.get_submodule(parent), last, meta_quantised(parameter, weight_dtype, dtype))
        return model.requires_grad_(False).fuse()


def meta_quantised(weight: Tensor, kind: str, dtype: torch.dtype) -> QuantLinear:
    """A quantised layer of a weight's size, without data."""
    (rows, columns), (form, _) = weight.shape, split_kind(kind)
    groups = columns // group_size(kind, columns)
    bias = torch.empty(rows, dtype=dtype)
    if form == "fp8_e4m3fn":
        return QuantLinear(torch.empty(rows, columns, dtype=torch.float8_e4m3fn), torch.empty(rows, 1), None, bias)
    scale, zero = (torch.empty(rows, groups, dtype=torch.bfloat16) for _ in range(2))
    if form == "int8":
        return QuantLinear(torch.empty(rows, columns, dtype=torch.int8), scale, None, bias)
    return QuantLinear(torch.empty(rows, columns // 2, dtype=torch.uint8), scale, zero, bias)


def count(
    config: ModelConfig, *, width: int, height: int, rank: int, targets: str, batch: int = 1,
    weight_dtype: str = "bf16", streamed: bool = False, checkpointing: bool = True, frames: int | None = None,
) -> TrainingNeeds:  # fmt: skip
    """Of a step at the finest stage, the largest; sizes in pixels. streamed: the blocks' matrices stay in the host's
    memory, and two at a time come over. frames: latent frames, those of a chunk if left open.

    Counted with two blocks and with three; the others take what the third took.
    """
    scale, c = config.vae.scale_factor_spatial, config.vae.z_dim
    size = (batch, c, frames or config.defaults.chunk_latent_frames, height // scale, width // scale)
    how = (size, rank, targets, weight_dtype, streamed, checkpointing)
    two, three = (_count(replace(config, transformer=replace(config.transformer, num_layers=n)), *how) for n in (2, 3))
    more = config.transformer.num_layers - 2
    return TrainingNeeds(*(a + more * (b - a) for a, b in zip(astuple(two), astuple(three))))


def _count(
    config: ModelConfig, size: tuple, rank: int, targets: str, weight_dtype: str, streamed: bool, checkpointing: bool
) -> TrainingNeeds:
    model = meta_transformer(config.transformer, weight_dtype)
    model.attend_by(flash_like)
    inside = {id(t) for block in model.blocks for t in tensors_of(block) if t.ndim == 2} if streamed else set()
    weights = sum(t.nbytes for t in tensors_of(model) if id(t) not in inside)
    largest = max((t.nbytes for t in tensors_of(model) if id(t) in inside), default=0)
    named = shapes(config.transformer)
    adapters = attach(model, find_layers(named, targets), named, rank=rank, alpha=rank)
    if checkpointing:
        checkpoint_blocks(model)
    numbers = sum(p.numel() for p in adapters.parameters())
    step = LiveBytes([*tensors_of(model), *adapters.parameters()])
    with step:
        _step(model, size, config)
    return TrainingNeeds(weights, numbers * (8 + STATE), step.peak - 4 * numbers + 2 * largest)


def _step(model: nn.Module, size: tuple[int, ...], config: ModelConfig) -> None:
    """One forward and backward pass on meta, of chunk latents of `size`."""
    b, c, t, h, w = size
    empty = lambda *shape: torch.empty(*shape, device="meta")  # noqa: E731
    history = History(empty(b, c, History.length((16, 2, 1), True), h, w), empty(b, c, 1, h, w))
    text = model.text_context(Embedding(empty(b, TOKENS, config.transformer.text_dim), config.defaults.max_text_length))
    context = model.history_context(history.parts(t))
    x, target = empty(*size), empty(*size)
    (((model(x, empty(b), text, context) - target) ** 2).mean()).backward()


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers."""
    return [*module.parameters(), *module.buffers()]
