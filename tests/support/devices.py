"""Machines that lack a library."""

from helios_video.helios_core.devices import libraries


def hide(monkeypatch, *names):
    real = libraries.util.find_spec
    monkeypatch.setattr(libraries.util, "find_spec", lambda name: None if name in names else real(name))
