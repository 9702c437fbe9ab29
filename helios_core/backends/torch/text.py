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

from ...checkpoint import EMBEDDINGS, Source, check_text_encoder, tell
from ...disk import reading
from ...text import Embedding, load_tokenizer
from .ahead import Ahead
from .files import STORED, Files

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

    dtype: of the weights; None is the file's (`find_dtype`). ValueError names missing files, and missing, unexpected
    or misshapen keys.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    check_text_encoder(source)
    tokenize = load_tokenizer(source.tokenizer, max_length, source.config["vocab_size"])
    with torch.device("meta"), reading(source.path, "UMT5 text encoder"):
        model = UMT5EncoderModel(UMT5Config(**source.config))
    files = Files(source)
    model.load_state_dict(_read(files, source, dtype or find_dtype(source), device), assign=True)
    ask_ahead(model.encoder.block, files)
    return UMT5TextEncoder(model.train(False).requires_grad_(False), tokenize, max_length=max_length)


def find_dtype(source: Source) -> torch.dtype:
    """One dtype for all layers: that of the stored linear layers; bfloat16 where they are in eight bits."""
    stored = source.tensors["encoder.block.0.layer.0.SelfAttention.q.weight"].dtype
    return STORED[stored] if stored in ("F32", "F16", "BF16") else torch.bfloat16


def _kept(name: str, dtype: torch.dtype) -> torch.dtype:
    """UMT5's feed-forward output overflows in half precision; transformers keeps it in float32 too."""
    return torch.float32 if dtype == torch.float16 and name.endswith(".wo.weight") else dtype


def ask_ahead(blocks, files: Files) -> None:
    """Has each block that starts ask for the next ones, where they are mapped."""
    ahead = Ahead.of(blocks, files.mapped)
    for i, block in enumerate(blocks if ahead else ()):
        block.register_forward_pre_hook(lambda *_, i=i: ahead.before(i))


def _read(files: Files, source: Source, dtype: torch.dtype, device) -> dict[str, Tensor]:
    found, weights = source.tensors, {}
    for name in sorted(found, key=lambda n: found[n][:2]):
        weights[name] = files.read(found[name], _kept(name, dtype), device)
        tell(found[name].whole)
    both = [weights[name] for name in EMBEDDINGS if name in weights]
    if len(both) == 2 and not torch.equal(*both):
        raise ValueError(f"text encoder {source.path}: {' and '.join(EMBEDDINGS)} differ; a UMT5 file ties them")
    return weights | dict.fromkeys(EMBEDDINGS, both[0])
