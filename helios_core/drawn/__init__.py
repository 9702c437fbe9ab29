"""Drawn videos, which helios-tiny is made of, and how well a model does what their captions say."""
