"""The nodes of Unified Latents, on small decoders with random weights; and that untrained ones are refused."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helios_video.helios_core import load as load_helios
from helios_video.helios_core import unified
from helios_video.helios_core.config.model import VAEConfig
from helios_video.helios_core.join import to_uint8
from helios_video.helios_core.training.files import save_ul
from helios_video.nodes import host, live, sockets, ul
from support.nodes import call
from support.ul import IMAGE, VIDEO, build

MEAN, STD = (0.5, -1.0, 0.0, 2.0), (2.0, 1.0, 0.5, 1.5)
WAN_LIKE = replace(VIDEO, space="wan-like", latents_mean=MEAN, latents_std=STD)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Saves a model in models/vae and loads it by name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "vae").mkdir(parents=True)

    def load(config, parts=("decoder",), steps=5, **inputs):
        save_ul(build(config, parts), tmp_path / "models" / "vae" / "ours.safetensors", steps=steps)
        return call("HeliosULLoader", file="ours.safetensors", **inputs)[0]

    return load


def latent(t=3, h=4, w=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(1, 4, t, h, w, generator=rng) * 1.3 + 0.4}


def decode(latent, decoder, **inputs):
    return call("ULDecoder", latent=latent, decoder=decoder, **inputs)[0]


class OtherVAE:
    """A VAE as ComfyUI has it: the first latent is one frame, each further one four."""

    def decode(self, z):
        frames = z[:, :3].repeat_interleave(8, 3).repeat_interleave(8, 4).repeat_interleave(4, 2)[:, :, 3:]
        return (frames.clamp(-1, 1).movedim(1, -1) + 1) / 2


def test_frames_come_out_as_images(load):
    frames = decode(latent(), load(WAN_LIKE))
    assert frames.shape == (9, 32, 48, 3) and frames.dtype == torch.float32
    assert 0 <= frames.min() < 0.4 and 0.6 < frames.max() <= 1


@pytest.mark.parametrize("vae", [None, OtherVAE()], ids=["noise", "warm"])
@pytest.mark.parametrize("steps", [1, 3])
def test_chunks_tiles_and_whole_agree(load, vae, steps):
    """Two clips of two latents decoded together, tiled, and the frames of each alone with the numbers it has there."""
    decoder, both = load(WAN_LIKE if vae else replace(WAN_LIKE, with_pixels=False)), latent(t=4)
    given = {"steps": steps, "seed": 7, "clip_latents": 2, "vae": vae}
    whole = decode(both, decoder, **given)
    assert whole.shape[0] == 10
    torch.testing.assert_close(decode(both, decoder, tile=2, **given), whole, rtol=0, atol=1e-5)
    first = decode({"samples": both["samples"][:, :, :2]}, decoder, **given)
    torch.testing.assert_close(first, whole[:5], rtol=0, atol=1e-5)
    second = decode({"samples": both["samples"][:, :, 2:]}, decoder, first_latent=2, **given)
    torch.testing.assert_close(second, whole[5:], rtol=0, atol=1e-5)


def test_the_seed_counts_and_is_kept(load):
    decoder = load(WAN_LIKE)
    assert torch.equal(decode(latent(), decoder, seed=3), decode(latent(), decoder, seed=3))
    assert (decode(latent(), decoder, seed=4) - decode(latent(), decoder, seed=3)).abs().max() > 1e-3


def test_raw_latents_are_normalised_as_the_file_says(load):
    plain = load(replace(WAN_LIKE, latents_mean=(), latents_std=()))
    z = latent()["samples"]
    shape = (1, -1, 1, 1, 1)
    by_hand = {"samples": (z - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)}
    wanted = decode(by_hand, plain)
    torch.testing.assert_close(decode(latent(), load(WAN_LIKE)), wanted, rtol=0, atol=1e-5)


def test_a_warm_start_near_the_top_is_the_vae_s_picture(load):
    decoder, z = load(replace(WAN_LIKE, with_pixels=False)), latent()
    frames = decode(z, decoder, vae=OtherVAE(), start=8.0)
    assert (frames - OtherVAE().decode(z["samples"])[0]).abs().mean() < 0.05
    assert (decode(z, decoder, vae=OtherVAE(), start=-6.0) - frames).abs().mean() > 0.05


def test_chunk_concat_takes_the_decoder(load, tmp_path, monkeypatch):
    monkeypatch.setattr(host, "clip_folder", lambda: tmp_path / "clip")
    decoder = load(WAN_LIKE)
    clip, _ = call("ChunkConcat", fps=24.0, latent=latent(), decoder=decoder)
    assert clip.num_frames == 9 and clip.size == (48, 32)


@pytest.mark.parametrize("backend", ["torch", "mlx"])
@pytest.mark.parametrize("vae", [None, OtherVAE()], ids=["alone", "looking"])
def test_a_chunk_decoded_alone_is_its_part_of_the_whole(load, vae, backend):
    """For a file as for images, and no two chunks have the same noise."""
    if backend == "mlx":
        pytest.importorskip("mlx.core", reason="mlx is not installed")
    decoder = load(WAN_LIKE if vae else replace(WAN_LIKE, with_pixels=False), backend=backend, vae=vae)
    raw = latent(t=20)["samples"]
    raw[:, :, 9:18] = raw[:, :, :9]
    whole = np.concatenate([*decoder.blocks(raw)])
    assert whole.shape == (33 + 33 + 5, 32, 48, 3) and whole.dtype == np.uint8
    parts = [np.concatenate([*decoder.blocks(raw[:, :, a : a + 9], first=a)]) for a in (0, 9, 18)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert not np.array_equal(parts[0], parts[1])
    np.testing.assert_array_equal(to_uint8(decoder.decode(raw)[0]), whole)
    if vae is None:  # with one, ULDecoder starts from its frames
        images = call("ULDecoder", latent={"samples": raw}, decoder=decoder)[0]
        np.testing.assert_array_equal(to_uint8(images), whole)


def test_of_a_batch_a_file_takes_the_first_alone(load, monkeypatch):
    decoder = load(WAN_LIKE, vae=OtherVAE())
    raw, seen = torch.cat([latent()["samples"], latent(seed=1)["samples"]]), []
    stream = type(decoder.model).stream
    monkeypatch.setattr(
        type(decoder.model), "stream", lambda self, z, *a, **k: seen.append(len(z)) or stream(self, z, *a, **k)
    )
    (block,) = decoder.blocks(raw)
    assert seen == [1] and np.array_equal(block, to_uint8(decoder.decode(raw[:1])[0]))


def test_a_broken_latent_makes_no_file(load):
    raw = latent()["samples"]
    raw[0, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="the decoder gave NaN or infinity"):
        [*load(WAN_LIKE).blocks(raw)]


def test_the_pack_s_own_vae_is_looked_at_as_it_decodes(load, monkeypatch):
    """Its frames come in [-1, 1], as they are wanted, and are brought to no other range on the way."""
    from helios_video.nodes import ul

    z = torch.randn(1, 16, 2, 2, 3)
    vae = sockets.VAESocket(load_helios(backend="torch"))
    monkeypatch.setattr(vae, "_images", lambda *_: pytest.fail("made images of them"))
    found = ul.other_frames(vae, z, 1)
    blocks = [[*vae.helios.backend.decode_blocks(vae.ready(24, 16), z[:, :, i : i + 1])] for i in range(2)]
    np.testing.assert_array_equal(found, torch.cat(sum(blocks, []), dim=2).numpy())


def test_the_loader_s_vae_is_looked_at_everywhere(load, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(host, "clip_folder", lambda: tmp_path / "clip")
    alone = load(WAN_LIKE)
    wired = decode(latent(), alone, vae=OtherVAE(), start=0.0)
    assert not caplog.messages
    assert not torch.equal(decode(latent(), alone), wired)
    assert "better where it sees the frames" in caplog.text
    with pytest.raises(ValueError, match="in 2 steps without them it would give noise"):
        decode(latent(), alone, steps=2)
    shown = load(WAN_LIKE, vae=OtherVAE())
    assert torch.equal(decode(latent(), shown, start=0.0), wired)
    raw = latent()["samples"]
    assert not torch.equal(shown.decode(raw), alone.decode(raw))
    clip, _ = call("ChunkConcat", fps=24.0, latent=latent(), decoder=shown)
    assert clip.num_frames == 9


def test_encoding_gives_clean_latents_that_decode(load):
    codec = load(IMAGE, ("encoder", "decoder"))
    images = torch.rand(2, 19, 26, 3)
    encoded = call("HeliosULEncode", images=images, decoder=codec)[0]
    assert encoded["samples"].shape == (1, 4, 2, 2, 3) and encoded["ul_space"] == "ul"
    assert torch.equal(call("HeliosULEncode", images=images, decoder=codec)[0]["samples"], encoded["samples"])
    assert decode(encoded, codec).shape == (2, 16, 24, 3)
    with pytest.raises(ValueError, match="of the latent space 'ul', the decoder is of 'wan-like'"):
        decode(encoded, load(WAN_LIKE))


def test_videos_are_encoded_in_whole_latents(load):
    codec = load(WAN_LIKE, ("encoder", "decoder"))
    images = torch.rand(8, 16, 16, 3)
    encoded = call("HeliosULEncode", images=images, decoder=codec)[0]
    assert encoded["samples"].shape == (1, 4, 2, 2, 2)
    cut = call("HeliosULEncode", images=images[:5], decoder=codec)[0]
    assert torch.equal(cut["samples"], encoded["samples"])
    first = call("HeliosULEncode", images=images[:1], decoder=codec)[0]
    torch.testing.assert_close(first["samples"], encoded["samples"][:, :, :1], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="too few or too small"):
        call("HeliosULEncode", images=images[:, :7], decoder=codec)


def test_what_does_not_fit_is_named(load):
    decoder = load(WAN_LIKE)
    with pytest.raises(ValueError, match="video latent \\[batch, 4,"):
        decode({"samples": torch.zeros(1, 16, 1, 4, 4)}, decoder)
    with pytest.raises(ValueError, match="holds no encoder"):
        call("HeliosULEncode", images=torch.zeros(5, 16, 16, 3), decoder=decoder)
    other = sockets.VAESocket(SimpleNamespace(config=SimpleNamespace(vae=VAEConfig())))
    with pytest.raises(ValueError, match="leave the input open"):
        decode(latent(), decoder, vae=other)
    with pytest.raises(ValueError, match="attends to whole frames"):
        decode(latent(), load(replace(WAN_LIKE, window=0)), tile=2)


def test_it_never_decodes_with_untrained_weights(load, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="never trained and would decode to noise"):
        load(WAN_LIKE, steps=0)
    monkeypatch.setitem(unified.SHIPPED, "helios-tiny", tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match="not in this installation"):
        call("HeliosULLoader", file="helios-tiny")
    (tmp_path / "models" / "vae" / "ours.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(ValueError, match="not a safetensors file"):
        call("HeliosULLoader", file="ours.safetensors")


def test_a_file_that_changed_is_loaded_again(load, tmp_path):
    from helios_video.nodes.ul import HeliosULLoader

    load(WAN_LIKE)
    before = HeliosULLoader.IS_CHANGED("ours.safetensors", backend="auto")
    assert HeliosULLoader.IS_CHANGED("ours.safetensors") == before != ""
    load(replace(WAN_LIKE, space="of another kind"))
    assert HeliosULLoader.IS_CHANGED("ours.safetensors") != before


def test_progress_and_stop_reach_every_step(load, monkeypatch):
    seen = []

    class Progress:
        def __init__(self, costs):
            self.total = sum(costs)

        def update(self, value):
            seen.append((value, self.total))
            if value == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(live, "NodeProgress", Progress)
    decoder = load(replace(WAN_LIKE, with_pixels=False))
    with pytest.raises(KeyboardInterrupt):
        decode(latent(t=4), decoder, steps=2, clip_latents=2)
    assert seen == [(1, 4), (2, 4), (3, 4)]


def test_both_backends_give_the_same_frames(load):
    pytest.importorskip("mlx.core", reason="mlx is not installed")
    ours = decode(latent(), load(WAN_LIKE, backend="mlx"), steps=2, vae=OtherVAE())
    theirs = decode(latent(), load(WAN_LIKE, backend="torch"), steps=2, vae=OtherVAE())
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=1e-4)


def test_what_decoded_frames_depend_on_is_told(load, tmp_path):
    """Kept chunks go by it: another file, device or VAE beside it is another decoder; an unknown VAE is not known."""
    file = tmp_path / "models/vae/ours.safetensors"
    codecs = [load(WAN_LIKE) for _ in range(2)]
    told = [codecs[0].identity, ul.ULCodec(codecs[0].model, SimpleNamespace(identity=("a VAE",))).identity]
    assert ul.ULCodec(codecs[0].model, OtherVAE()).identity is None
    os.utime(file, (1, 1))
    assert codecs[0].identity == told[0], "what was opened stays what it is while the file changes"
    told.append(call("HeliosULLoader", file="ours.safetensors")[0].identity)
    codecs[1].model.device = torch.device("meta")
    os.utime(file, (1, 1))
    told.append(codecs[1].identity)
    assert len(set(told)) == 4
