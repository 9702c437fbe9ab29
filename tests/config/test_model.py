"""The configs of a folder."""

import pytest
from helios_video.helios_core.config.model import read_folder
from support.published import make_published, write


def test_generation_config_fills_in_over_the_variants_preset(tmp_path):
    """A file that names only a size keeps the variant's steps; the solver is the scheduler's own."""
    folder = make_published(tmp_path / "checkpoint")
    write(folder / "model_index.json", {"_class_name": "HeliosPyramidPipeline", "is_distilled": False})
    write(folder / "scheduler" / "scheduler_config.json", {"_class_name": "HeliosScheduler", "scheduler_type": "euler"})
    write(folder / "generation_config.json", {"width": 64, "height": 128})
    config = read_folder(folder)
    assert config.variant == "mid" and config.defaults.steps == (20, 20, 20)
    assert (config.defaults.width, config.defaults.height, config.defaults.solver) == (64, 128, "euler")
    write(folder / "generation_config.json", {"steps": [8, 8, 8], "cfg": 3.0, "solver": "dmd"})
    config = read_folder(folder)
    assert config.defaults.steps == (8, 8, 8) and config.defaults.solver == "dmd" and config.defaults.cfg == 3.0
    write(folder / "generation_config.json", {"colour": "red"})
    with pytest.raises(ValueError, match="colour"):
        read_folder(folder)
