"""UMT5, the text encoder, through transformers.

Two traps. The published config says tie_word_embeddings=False while the file stores only shared.weight; loaders that
believe it leave the encoder's own embedding empty, and the video grey: here both names are always one tensor. And in
half precision the feed-forward's output overflows: those layers stay float32 then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from ...checkpoint import EMBEDDINGS, Source, check_text_encoder, is_kept_text, precision, tell
from ...disk import reading
from ...text import Embedding, load_tokenizer
from .ahead import Ahead
from .files import STORED, Files
from .gguf import BlockLinear
from .quant import QuantLinear
from .text_layers import Layer, Words, alike, put
from .weights import quant_layer

FORMATS = {STORED[name]: name for name in precision.DTYPES.values()}
logger = logging.getLogger(__name__)


class UMT5TextEncoder:
    """Cleaned prompts -> `Embedding` of rows [b n d_model], float32 on the CPU, exactly zero past each prompt's end.

    tokenize: prompts -> token ids per prompt, end token included, at most max_length.
    """

    def __init__(self, model, tokenize: Callable[[list[str]], list[list[int]]], *, max_length: int = 512):
        self.model, self.tokenize, self.max_length = model, tokenize, max_length

    @torch.inference_mode()
    def __call__(self, prompt: str | list[str]) -> Embedding:
        """One prompt or several. An empty prompt is its end token alone."""
        rows = self.tokenize([prompt] if isinstance(prompt, str) else prompt)
        # Padded only to the longest prompt: masked positions change nothing, and encoding 512 of them is slow.
        longest = max(map(len, rows))
        if longest == self.max_length:
            logger.warning("a prompt fills all %d tokens; anything after them was cut off", self.max_length)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self.model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.model.device)
        states = self.model(ids, mask).last_hidden_state.float() * mask[..., None]
        return Embedding(states.cpu(), self.max_length)


def load_text_encoder(
    source: Source, *, device="cpu", dtype: torch.dtype | None = None, max_length: int = 512
) -> UMT5TextEncoder:
    """The text encoder with its tokenizer.

    dtype: of the weights; None is the file's (`find_dtype`). What is stored in fewer bits stays so, and is widened to
    it as it computes. ValueError names missing files, and missing, unexpected or misshapen keys.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    check_text_encoder(source)
    tokenize = load_tokenizer(source.tokenizer, max_length, source.config["vocab_size"])
    with torch.device("meta"), reading(source.path, "UMT5 text encoder"):
        model = UMT5EncoderModel(UMT5Config(**source.config))
    files = Files(source)
    weights = _read(files, source, dtype or find_dtype(source), device)
    if other := sorted(weights.keys() ^ model.state_dict().keys()):
        raise ValueError(f"text encoder {source.path}: its config is of another network, with or without {other[0]}")
    for name, weight in weights.items():
        put(model, name, weight)
    ask_ahead(model.encoder.block, files)
    return UMT5TextEncoder(model.train(False).requires_grad_(False), tokenize, max_length=max_length)


def find_dtype(source: Source) -> torch.dtype:
    """One dtype for all layers: that of the stored linear layers; bfloat16 where they are in fewer bits."""
    return STORED[precision.text_format(source)]


def ask_ahead(blocks, files: Files) -> None:
    """Has each block that starts ask for the next ones, where they are mapped."""
    ahead = Ahead.of(blocks, files.mapped)
    for i, block in enumerate(blocks if ahead else ()):
        block.register_forward_pre_hook(lambda *_, i=i: ahead.before(i))


def _read(files: Files, source: Source, dtype: torch.dtype, device) -> dict[str, Layer | Tensor]:
    found, weights = source.tensors, {}
    for name in sorted(found, key=lambda n: found[n][:2]):
        wide = precision.text_is_float32(name, FORMATS[dtype])
        weights[name] = _weight(name, source, files, torch.float32 if wide else dtype, device)
        tell(found[name].whole)
    both = [weights[name] for name in EMBEDDINGS if name in weights]
    if len(both) == 2 and not alike(*both, torch.arange(source.config["vocab_size"], device=device)):
        raise ValueError(f"text encoder {source.path}: {' and '.join(EMBEDDINGS)} differ; a UMT5 file ties them")
    return weights | dict.fromkeys(EMBEDDINGS, both[0])


def _weight(name: str, source: Source, files: Files, dtype: torch.dtype, device) -> Layer | Tensor:
    stored, on = source.tensors[name], torch.device(device).type
    if is_kept_text(name, stored, on):
        make, bias = BlockLinear.of if stored.in_gguf else QuantLinear, torch.zeros(stored.shape[0], dtype=dtype)
        return quant_layer(make, name, stored, files, None, device, bias.to(device))
    if name in EMBEDDINGS and on == "cpu" and stored.dtype in FORMATS.values() and STORED[stored.dtype] != dtype:
        return Words(files.read(stored, STORED[stored.dtype], device), dtype)
    return files.read(stored, dtype, device)
