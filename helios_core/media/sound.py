"""The sound of a clip: read beside its frames, written beside them again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .container import DEFAULT, open_video, said, shown_stream

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


@dataclass(frozen=True)
class Sound:
    """samples: float32 [channels n], -1 to 1. rate: samples per second."""

    samples: np.ndarray
    rate: int


def sound_stream(file):
    """The sound that a player plays: the one marked as default, else the first that can be decoded; None if none is."""
    streams = [stream for stream in file.streams.audio if stream.codec_context is not None]
    return next((stream for stream in streams if stream.disposition.value & DEFAULT), next(iter(streams), None))


def read_sound(path) -> tuple[Sound | None, str]:
    """(the sound, ""), beginning with the first frame; (None, why) where there is none or it cannot be decoded."""
    import av

    with open_video(path) as file:
        stream, video = sound_stream(file), shown_stream(file, path)
        if stream is None:
            return None, f"{path}: its sound cannot be decoded" if file.streams.audio else ""
        begin = (video.start_time or 0) * video.time_base
        resampler, parts, start = av.AudioResampler(format="fltp"), [], None
        try:
            for frame in file.decode(stream):
                start = (frame.pts or 0) * (frame.time_base or stream.time_base) if start is None else start
                parts += [part.to_ndarray() for part in resampler.resample(frame)]
            parts += [part.to_ndarray() for part in resampler.resample(None)]
        except (av.error.FFmpegError, ValueError) as error:
            return None, f"{path}: its sound cannot be decoded: {said(error)}"
        rate = stream.codec_context.sample_rate
    if not parts:
        return None, ""
    return Sound(_from(np.concatenate(parts, axis=1), round((begin - start) * rate)), rate), ""


def _from(samples: np.ndarray, first: int) -> np.ndarray:
    """From sample `first` on; silence before the sound begins."""
    if first >= 0:
        return samples[:, first:]
    return np.pad(samples, ((0, 0), (-first, 0)))


def write_sound(file, sound: Sound):
    """Adds an AAC stream to a PyAV container that is written, and returns a function that fills it.

    ValueError for samples that are not [channels n] in floats.
    """
    samples = np.asarray(sound.samples, np.float32)
    if samples.ndim != 2 or not len(samples) or not np.isfinite(samples).all():
        raise ValueError(f"sound must be finite floats [channels, samples], got {list(samples.shape)}")
    if len(samples) not in LAYOUTS:
        samples = samples.mean(axis=0, keepdims=True)
    layout, rate = LAYOUTS[len(samples)], int(sound.rate)
    stream = file.add_stream("aac", rate=rate if rate in AAC_RATES else 48000, layout=layout)
    return lambda: _encode(file, stream, samples, layout, rate)


def _encode(file, stream, samples: np.ndarray, layout: str, rate: int) -> None:
    import av

    resampler = av.AudioResampler(format="fltp", layout=layout, rate=stream.rate, frame_size=1024)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
    frame.sample_rate, frame.pts = rate, 0
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        file.mux(stream.encode(part))
    file.mux(stream.encode(None))
