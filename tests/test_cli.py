"""The command line: what it does not know is refused."""

import pytest
from helios_video.helios_core.cli import main


def test_unknown_arguments_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--loud"])
    assert stop.value.code == 2 and "--loud" in capsys.readouterr().err
