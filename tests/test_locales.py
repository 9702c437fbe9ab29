"""The translations: each language says everything that English says, and English says what the nodes say."""

from __future__ import annotations

import re

import pytest
import translations

OTHERS = [language for language in translations.LANGUAGES if language != "en"]
NATIVE = {"zh": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff\u4e00-\u9fff]"}
UNTRANSLATED = {"vae", "cfg", "lora", "latent"}  # words of the trade: they may stand as they are, or with a number
FILES = {"nodeDefs": translations.node_texts(), "main": translations.main_texts()}


def test_english_is_what_the_nodes_say():
    for name, texts in FILES.items():
        assert translations.read("en", name) == texts, "run python tests/translations.py"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("language", OTHERS)
def test_a_language_lacks_nothing_and_keeps_nothing_stale(language, name):
    found, wanted = (set(translations.leaves(texts)) for texts in (translations.read(language, name), FILES[name]))
    assert not wanted - found, f"{language}/{name}.json lacks these"
    assert not found - wanted, f"{language}/{name}.json still has these"


@pytest.mark.parametrize("language", OTHERS)
def test_texts_are_translated(language):
    english = translations.leaves(translations.node_texts())
    for path, text in translations.leaves(translations.read(language, "nodeDefs")).items():
        bare = text.lower().rstrip(" 0123456789")
        if bare not in UNTRANSLATED and text != "Helios LoRA":
            assert re.search(NATIVE[language], text), f"{path}: {text}"
            assert text != english[path], path
        if path.endswith(("tooltip", "description")):
            assert len(text) > 5, path


@pytest.mark.parametrize("language", OTHERS)
def test_numbers_and_choices_survive_translation(language):
    """A tooltip that names files, sizes or a combo's choices names the same ones in every language."""
    english = translations.leaves(translations.node_texts())
    for path, text in translations.leaves(translations.read(language, "nodeDefs")).items():
        if path.endswith("name"):
            continue
        names = re.findall(r"\w+\.(?:safetensors|pth|json)|\b[a-z]+_[a-z_]+\b|\d+x\d+", english[path])
        assert not (lost := [name for name in names if name not in text]), f"{path} does not name {lost}"


@pytest.mark.parametrize("language", translations.LANGUAGES)
def test_no_text_holds_what_the_frontend_would_interpret(language):
    """vue-i18n reads braces as places to fill in, @ as a link to another text and | as a choice of plurals."""
    for name in FILES:
        for path, text in translations.leaves(translations.read(language, name)).items():
            assert not set("{}@|") & set(text), path


def test_every_kind_of_wire_of_ours_is_named():
    from helios_video import NODE_CLASS_MAPPINGS as nodes
    from helios_video.helios_core.workflow.format import inputs_of

    kinds = {what for kind in nodes.values() for what, _ in inputs_of(kind).values()}
    kinds |= {what for kind in nodes.values() for what in kind.RETURN_TYPES}
    ours = {part for what in kinds for part in what.split(",") if part.startswith(("HELIOS_", "UL_"))}
    assert ours == set(translations.SOCKETS)
