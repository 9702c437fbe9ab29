"""Cleaning a prompt, as the reference does, with ftfy and without. Named: D5."""

import sys

from helios_video.helios_core.text.clean import prompt_clean
from support.text import PROMPTS


def test_d5_prompt_cleaning_needs_no_ftfy(monkeypatch):
    """ComfyUI does not bring it: without it only text that was decoded wrongly comes out otherwise."""
    texts = ["  a &amp;amp; b\n\t c ", "\u201cquoted\u201d, it\u2019s \u2018so\u2019", "&ldquo;x&rdquo; <b>&ldquo;</b>"]
    texts += ["\uff21 red\uff0c\u3000circle \uff76\uff9e", "\ufb01ne \u0133s", "cafe\u0301", "a\x07b\ufeffc"]
    texts += ["\u4e00\u53ea\u732b\uff0c\u5728\u8dd1\u3002", "\u732b\u304c\u8d70\u308b\u3002", *PROMPTS]
    wanted = [prompt_clean(text) for text in texts]
    monkeypatch.setitem(sys.modules, "ftfy", None)  # an import of it raises ImportError
    assert [prompt_clean(text) for text in texts] == wanted
    assert wanted[:2] == ["a & b c", "\"quoted\", it's 'so'"]


def test_prompt_cleaning_is_the_reference_s():
    from diffusers.pipelines.helios import pipeline_helios_pyramid as reference

    broken = "sch\u00c3\u00b6n \u00e2\u20ac\u0153x\u00e2\u20ac\u009d"  # UTF-8 once read as cp1252
    for text in (*PROMPTS, " a\n\nb\u00a0c ", "&lt;b&gt; &amp;lt;i&amp;gt;", broken, "\ufb01ne", ""):
        assert prompt_clean(text) == reference.prompt_clean(text)
    assert prompt_clean(broken).startswith("sch\u00f6n")
