"""`helios train`: a config, what the command line changes of it, and what is refused before it starts."""

import pytest
from helios_video.helios_core.cli import main


def test_train_takes_a_config_and_the_command_line_wins(monkeypatch, tmp_path):
    from helios_video.helios_core.training.tiny import run

    seen = []
    monkeypatch.setattr(run, "run", lambda settings, *places, **how: seen.append((settings, places, how)))
    config, folder = tmp_path / "mine.json", tmp_path / "run"
    config.write_text('{"steps": 7, "vae_steps": 3, "decay": 0.5}')
    arguments = ["--config", str(config), "--steps", "5", "--folder", str(folder), "-o", str(tmp_path / "out")]
    assert main(["train", "tiny", *arguments, "--device", "cpu"]) == 0
    [(settings, places, how)] = seen
    assert (settings.steps, settings.vae_steps, settings.decay) == (5, 3, 0.5)
    assert places == (folder, tmp_path / "out") and how == {"device": "cpu", "compiled": False}
    assert main(["train", "tiny", "--config", str(folder / "config.json"), "--folder", str(folder)]) == 0
    assert seen[1][0] == settings


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{", "is not JSON"),
        ("[1]", "wanted a JSON object"),
        ('{"stepz": 1}', "unknown stepz; known are vae_steps"),
        ('{"steps": -1}', "steps must be a positive int"),
        ('{"steps": 1.5}', "steps must be a positive int"),
        ('{"steps": "many"}', "got 'many'"),
    ],
)
def test_train_refuses_a_config_before_it_starts(tmp_path, text, wanted, capsys):
    (tmp_path / "c.json").write_text(text)
    assert main(["train", "tiny", "--config", str(tmp_path / "c.json"), "--folder", str(tmp_path / "run")]) == 2
    assert wanted in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_train_refuses_a_device_that_is_not_there(tmp_path, capsys):
    assert main(["train", "tiny", "--device", "cuda:99", "--folder", str(tmp_path)]) == 2
    assert "try auto or cpu" in capsys.readouterr().err
