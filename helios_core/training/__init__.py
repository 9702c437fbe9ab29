"""Trainings from nothing or from a checkpoint: the loop, the data, the files; a folder per kind of model."""
