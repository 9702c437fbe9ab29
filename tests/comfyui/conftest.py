"""The ComfyUI that the tests of a module share; PROBES in the module is the text of a pack for it."""

import pytest


@pytest.fixture(scope="module")
def server(request, tmp_path_factory):
    from support.comfyui import serving

    with serving(tmp_path_factory.mktemp("comfyui"), getattr(request.module, "PROBES", "")) as server:
        yield server
