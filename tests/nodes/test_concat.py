"""ChunkConcat: images and latents become a growing clip. Named: M16, M18."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helios_video.helios_core.join import video
from helios_video.nodes import sockets
from support.nodes import Stopped, call, images, make_history, sample


def test_images_become_a_growing_clip(temp):
    one, _ = call("ChunkConcat", images=images())
    two, film = call("ChunkConcat", images=images(5), clip=one)
    assert (one.num_frames, two.num_frames) == (3, 8)
    assert [s.frames for s in two.segments] == [3, 5] and two.segments[0] == one.segments[0]
    assert not list(one.folder.glob("joined*")), "joined before anybody asked for it"
    assert film.get_dimensions() == (16, 16) and video.probe(film.get_stream_source()).frames == 8
    shown = video.read_frames(film.get_stream_source())[:, 8, 8, 1] / 255
    assert np.abs(shown - np.concatenate([np.linspace(0, 1, 3), np.linspace(0, 1, 5)])).max() < 0.03


def test_latents_are_decoded_chunk_by_chunk(temp, fake_helios):
    latent, _ = sample(fake_helios, make_history(fake_helios))
    clip, film = call("ChunkConcat", latent=latent, decoder=sockets.VAESocket(fake_helios), num_frames=20)
    assert clip.num_frames == 33 and clip.size == (64, 128)
    assert video.probe(film.get_stream_source()).frames == 20
    two = {"samples": torch.cat([latent["samples"]] * 2, dim=2)}
    clip, _ = call("ChunkConcat", latent=two, decoder=sockets.VAESocket(fake_helios), drop_first_frame=True)
    assert [s.frames for s in clip.segments] == [33, 32]


def test_comfyuis_own_vae_decodes_too(temp, fake_helios):
    latent, _ = sample(fake_helios, make_history(fake_helios))
    ours = sockets.VAESocket(fake_helios)
    foreign = SimpleNamespace(latent_channels=16, decode=ours.decode)
    clip, film = call("ChunkConcat", latent=latent, decoder=foreign)
    same, other = call("ChunkConcat", latent=latent, decoder=ours)
    assert clip.num_frames == same.num_frames == 33
    assert np.array_equal(*(video.read_frames(v.get_stream_source()) for v in (film, other)))


@pytest.mark.parametrize("wired", [[], ["images", "latent"], ["latent"], ["decoder"], ["images", "latent", "decoder"]])
def test_exactly_one_way_into_chunk_concat(wired):
    with pytest.raises(ValueError, match="wire either images, or latent and decoder together"):
        call("ChunkConcat", **dict.fromkeys(wired, "something"))


def test_chunk_concat_refuses_what_does_not_fit(temp, fake_helios):
    clip, _ = call("ChunkConcat", images=images())
    with pytest.raises(ValueError, match="the clip so far has 24, this chunk 16"):
        call("ChunkConcat", images=images(), clip=clip, fps=16.0)
    with pytest.raises(ValueError, match=r"the clip's frames are \(16, 16\)"):
        call("ChunkConcat", images=images(size=32), clip=clip)
    with pytest.raises(ValueError, match="NaN"):
        call("ChunkConcat", images=images() * float("nan"))
    vae = sockets.VAESocket(fake_helios)
    with pytest.raises(ValueError, match="latent: wanted a video latent"):
        call("ChunkConcat", latent={"samples": torch.zeros(1, 48, 9, 8, 8)}, decoder=vae)
    with pytest.raises(ValueError, match="batch of 2"):
        call("ChunkConcat", latent={"samples": torch.zeros(2, 16, 9, 8, 8)}, decoder=vae)


def test_a_stopped_join_leaves_the_finished_chunks_playable(temp, comfyui, fake_helios):
    latent, _ = sample(fake_helios, make_history(fake_helios))
    vae = sockets.VAESocket(fake_helios)
    clip, _ = call("ChunkConcat", latent=latent, decoder=vae)
    comfyui.stop = True
    with pytest.raises(Stopped):
        call("ChunkConcat", latent=latent, decoder=vae, clip=clip)
    assert video.probe(clip.segments[0].path).frames == 33


def test_m16_frames_are_left_out_only_where_a_chunk_follows(temp):
    clip = None
    for count in (3, 5, 9):
        clip, film = call("ChunkConcat", images=images(count), clip=clip, drop_first_frame=True, num_frames=10)
    assert [s.frames for s in clip.segments] == [3, 4, 8]
    assert video.probe(film.get_stream_source()).frames == 10
    with pytest.raises(ValueError, match="one besides a dropped one"):
        call("ChunkConcat", images=images(1), clip=clip, drop_first_frame=True)


def test_every_boundary_gives_its_own_file_and_leaves_the_clip_before_alone(temp):
    """ComfyUI keeps results by their inputs: one clip may be gone on with in several ways."""
    rng = np.random.default_rng(0)
    picture = torch.from_numpy(rng.random((1, 8, 8, 3), np.float32)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    start, darker = picture.expand(9, 32, 32, 3), (picture * 0.9).expand(9, 32, 32, 3)
    one, _ = call("ChunkConcat", images=start)
    settings = [dict(boundary=b) for b in ("none", "match", "crossfade")]
    settings += [dict(boundary="match", boundary_frames=3), dict(drop_first_frame=True)]
    clips, shown = [], []
    for inputs in settings:
        clip, film = call("ChunkConcat", images=darker, clip=one, **inputs)
        clips.append(clip)
        shown.append(video.read_frames(film.get_stream_source())[9:, :, :, 1].mean((1, 2)))
    assert len(set(clips)) == len({clip.segments[1].path for clip in clips}) == 5
    assert len(one.segments) == 1 and all(clip.segments[0] == one.segments[0] for clip in clips)
    lack = [(means[-1] - means[0]) for means in shown]
    assert abs(lack[0]) < 1 and lack[1] < -8 and lack[2] < -6 and lack[3] < -8 and len(shown[4]) == 8
    assert abs(shown[3][3] - shown[3][-1]) < 1 < abs(shown[1][3] - shown[1][-1])


def test_a_bad_boundary_is_named(temp):
    policy = ({"boundary": "blend"}, "'blend': wanted one of none, match")
    for bad, says in (policy, ({"boundary_frames": 0}, "at least 1")):
        with pytest.raises(ValueError, match=says):
            call("ChunkConcat", images=images(), **bad)


@pytest.mark.parametrize("boundary", ["none", "match", "crossfade"])
def test_m18_latents_reach_the_decoder_as_they_are(temp, fake_helios, boundary):
    """Blending latents of two chunks gives grid patterns: whatever the boundary, each chunk is decoded alone (M15)."""
    seen, vae = [], sockets.VAESocket(fake_helios)

    def decode(z):
        seen.append(z)
        return vae.decode(z)

    latent, _ = sample(fake_helios, make_history(fake_helios))
    two = {"samples": torch.cat([latent["samples"], 2 * latent["samples"]], dim=2)}
    call("ChunkConcat", latent=two, decoder=SimpleNamespace(latent_channels=16, decode=decode), boundary=boundary)
    assert len(seen) == 2 and torch.equal(torch.cat(seen, dim=2), two["samples"])
