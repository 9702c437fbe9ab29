"""What the rendering commands share: LoRAs by name, file and strength."""

from __future__ import annotations

import pytest
from helios_video.helios_core import cli, load
from helios_video.helios_core.commands import render
from helios_video.helios_core.commands.render import split_strength
from support.loras import lora_folder


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lora_folder(tmp_path)


def test_strength_is_split_from_file_names_with_colons(tmp_path):
    assert split_strength("a.safetensors") == ("a.safetensors", 1.0, "")
    assert split_strength("a.safetensors:0.8") == ("a.safetensors", 0.8, "")
    assert split_strength("a.safetensors:0.8@0-3=2,4=0") == ("a.safetensors", 0.8, "0-3=2,4=0")
    assert split_strength("a.safetensors:-1e-1") == ("a.safetensors", -0.1, "")
    assert split_strength(r"C:\loras\a.safetensors") == (r"C:\loras\a.safetensors", 1.0, "")
    assert split_strength(r"C:\loras\a.safetensors:2") == (r"C:\loras\a.safetensors", 2.0, "")
    assert split_strength("C:/a.safetensors") == ("C:/a.safetensors", 1.0, "")
    odd = tmp_path / "a:1"
    odd.touch()
    assert split_strength(str(odd)) == (str(odd), 1.0, "")
    for text in ("a.safetensors:much", "a.safetensors:nan", "a.safetensors:"):
        with pytest.raises(ValueError, match="wanted FILE or FILE:STRENGTH"):
            split_strength(text)
    with pytest.raises(ValueError, match="LoRA blocks '0-2': wanted such as"):
        split_strength("a.safetensors:1@0-2")


def test_command_line_takes_several_loras_by_name_and_file(here, capsys):
    argv = ["generate", "--prompt", "x", "--lora", "a.safetensors:0.5", "--lora", str(here / "sub" / "b.safetensors")]
    model = render.add_loras(load(), cli.parser().parse_args(argv))
    assert [(file.path.name, strength.value) for file, strength in model.parts.loras.files] == [
        ("a.safetensors", 0.5),
        ("b.safetensors", 1.0),
    ]
    assert "a.safetensors at 0.5: 8 layers changed" in capsys.readouterr().err
    helios = load()
    assert render.add_loras(helios, cli.parser().parse_args(argv[:3])) is helios
    assert cli.main([*argv[:3], "--lora", "gone.safetensors", "-o", str(here / "x.mp4")]) == 2
    assert "no file 'gone.safetensors', here or in models/loras" in capsys.readouterr().err
