"""`helios doctor`: backends, folders and checkpoints."""

from helios_video.helios_core.cli import main
from helios_video.helios_core.commands import doctor
from helios_video.helios_core.devices import Memory


def test_doctor_names_backends_folders_and_checkpoints(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HELIOS_MODELS", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere" / "Broken").mkdir(parents=True)
    (tmp_path / "elsewhere" / "Broken" / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    code = main(["doctor"])
    report = capsys.readouterr().out
    for text in ("torch ", "mlx", "cpu:", "GiB", "CPU cores", str(tmp_path / "elsewhere"), "helios-tiny (built in)"):
        assert text in report
    assert "Broken: cannot be used" in report and "WanPipeline" in report
    assert code == (1 if "helios-tiny (built in): cannot be used" in report else 0)


def test_doctor_shows_the_containers_memory(monkeypatch, capsys):
    """It showed the machine's, of which a container may use a part."""
    monkeypatch.setattr(doctor, "read_memory", lambda: Memory(4 * 2**30, 3 * 2**30, True))
    main(["doctor"])
    assert "Memory: 4.0 GiB (the limit of this container), 3.0 GiB free, " in capsys.readouterr().out
    monkeypatch.setattr(doctor, "read_memory", lambda: Memory(None, None, False))
    main(["doctor"])
    assert "Memory: of unknown size, " in capsys.readouterr().out


def test_doctor_says_why_a_folder_or_file_is_skipped(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HELIOS_MODELS", raising=False)
    (tmp_path / "models" / "helios" / "Half" / "transformer").mkdir(parents=True)
    (tmp_path / "models" / "helios" / "one.safetensors").touch()
    (tmp_path / "models" / "vae").mkdir()
    (tmp_path / "models" / "vae" / "old.ckpt").touch()
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    assert "Half is skipped: no model_index.json" in report
    assert "one.safetensors is skipped: here are folders" in report
    assert f"{tmp_path / 'models' / 'vae'}  (0 found, 1 skipped: not .safetensors" in report
    assert f"{tmp_path / 'models' / 'loras'}  (does not exist)" in report
