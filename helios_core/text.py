"""What is done to a prompt before the tokenizer sees it. No framework."""

from __future__ import annotations

import html
import re


def prompt_clean(text: str) -> str:
    """Repairs broken encodings, unescapes HTML twice and collapses white space, as the reference does.

    Without ftfy the first step is left out, which changes only text that was once decoded wrongly.
    """
    try:
        import ftfy
    except ImportError:
        pass
    else:
        text = ftfy.fix_text(text)
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip()
