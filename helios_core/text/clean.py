"""What is done to a prompt before the tokenizer sees it. No framework."""

from __future__ import annotations

import html
import re
import unicodedata

WIDE = "[\u0132\u0133\ufb00-\ufb04\uff01-\uffef\u3000]"  # ligatures, full and half width
CONTROLS = "[\x00-\x08\x0b\x0e-\x1f\x7f\u206a-\u206f\ufeff\ufff9-\ufffc]"


def prompt_clean(text: str) -> str:
    """Repairs broken encodings, unescapes HTML twice and collapses white space, as the reference does.

    ftfy is optional: without it, text that was once decoded wrongly stays wrong, and the rest comes out the same.
    """
    try:
        from ftfy import fix_text
    except ImportError:
        fix_text = plain
    return re.sub(r"\s+", " ", html.unescape(html.unescape(fix_text(text)))).strip()


def plain(text: str) -> str:
    """What ftfy does to text that was decoded rightly: straight quotes, letters of plain form and width, NFC, and no
    control characters."""
    text = text if "<" in text else html.unescape(text)
    text = re.sub("[\u02bc\u2018-\u201b]", "'", re.sub("[\u201c-\u201f]", '"', text))
    text = re.sub(WIDE, lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return re.sub(CONTROLS, "", unicodedata.normalize("NFC", text))
