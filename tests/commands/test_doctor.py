"""`helios doctor`: backends, folders and checkpoints."""

from helios_video.helios_core.cli import main


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
