"""Control: latents of a second video enter beside the noisy ones, by a small adapter; what it is, and what it adds."""

from .adapter import ADAPTERS, EMBEDDING, KIND, TINY_ADAPTER, AdapterFile, adapter_facts, find_adapter, read_adapter
from .clips import encode_clip, from_latents, parse_chunks
from .guide import POLICIES, Control, adapted, check_controls, control_tokens, identities
from .tokens import levels, patches, tokens

__all__ = [
    "ADAPTERS",
    "AdapterFile",
    "Control",
    "EMBEDDING",
    "KIND",
    "POLICIES",
    "TINY_ADAPTER",
    "adapted",
    "adapter_facts",
    "check_controls",
    "control_tokens",
    "encode_clip",
    "find_adapter",
    "from_latents",
    "identities",
    "levels",
    "parse_chunks",
    "patches",
    "read_adapter",
    "tokens",
]
