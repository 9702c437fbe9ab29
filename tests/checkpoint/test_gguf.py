"""GGUF files: what is in them, under which name, and every way in which they are broken."""

import struct

import numpy as np
import pytest
from helios_video.helios_core.checkpoint import gguf, gguf_tokenizer, open_checkpoint, open_part, read_header
from helios_video.helios_core.checkpoint.names import pull_request_name
from helios_video.helios_core.text.tokenizer import load_tokenizer
from support import gguf as made
from support.parts import TEXT, WORDS


def numbers(state):
    return {name: value.float().numpy() for name, value in state.items()}


@pytest.mark.parametrize("arch", ["wan", "helios", "pig", "cow", None])
@pytest.mark.parametrize("rename", [str, pull_request_name, lambda name: f"model.diffusion_model.{name}"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_transformer_by_any_names(states, tmp_path, arch, rename, flat):
    state = numbers(states["transformer"])
    path = made.write(tmp_path / "x.gguf", {rename(k): v for k, v in state.items()}, arch=arch, kind="Q8_0", flat=flat)
    source = open_part(path, "transformer")
    assert {name: stored.shape for name, stored in source.tensors.items()} == {k: v.shape for k, v in state.items()}
    assert source.quantised == "q8_0"
    name = "patch_short.weight"
    assert source.tensors[name].read() == state[name].tobytes()


def test_wans_own_names(states, tmp_path):
    from helios_video.helios_core.lora.names import wan_name

    state = numbers(states["transformer"])
    path = made.write(tmp_path / "x.gguf", {wan_name(name): value for name, value in state.items()})
    assert set(open_part(path, "transformer").tensors) == set(state)


def umt5(states, tmp_path, spiece, **options):
    """As llama.cpp's convert_hf_to_gguf.py writes it."""
    lists = gguf_lists(spiece)

    def extra(writer):
        for key, value in lists.items():
            {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32}.get(type(value), writer.add_array)(
                f"tokenizer.ggml.{key}", value
            )

    state = {gguf.t5_gguf_name(name): value for name, value in numbers(states["text_encoder"]).items()}
    assert "enc.blk.1.attn_q.weight" in state and "enc.blk.0.ffn_gate.weight" in state and "token_embd.weight" in state
    return made.write(tmp_path / "umt5.gguf", state, arch="t5encoder", extra=extra, **options)


def gguf_lists(spiece):
    """A sentencepiece model in llama.cpp's lists, by sentencepiece."""
    model = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_proto=spiece)
    ids = range(model.get_piece_size())
    kinds = [2 if model.is_unknown(i) else 3 if model.is_control(i) else 6 if model.is_byte(i) else 1 for i in ids]
    return {
        **{"model": "t5", "pre": "default", "tokens": [model.id_to_piece(i) for i in ids]},
        **{"scores": [model.get_score(i) for i in ids], "token_type": kinds},
        **{"eos_token_id": 1, "unknown_token_id": 2, "padding_token_id": 0, "add_space_prefix": True},
        "remove_extra_whitespaces": True,
    }


def test_a_text_encoder_of_llama_cpp_with_its_tokenizer(states, spiece, tmp_path, files):
    path = umt5(states, tmp_path, spiece)
    source, plain = open_part(path, "text_encoder"), open_part(files[1], "text_encoder")
    assert {k: v.shape for k, v in source.tensors.items()} == {k: v.shape for k, v in plain.tensors.items()}
    assert source.config["d_model"] == TEXT["d_model"] and isinstance(source.tokenizer, gguf_tokenizer.Inside)
    prompts = [*WORDS, " ".join(WORDS), "  two  spaces ", ""]
    assert load_tokenizer(source.tokenizer, 20)(prompts) == load_tokenizer(plain.tokenizer, 20)(prompts)
    checkpoint = open_checkpoint(files[0], text_encoder=path, vae=files[2])
    assert checkpoint.sources["text_encoder"].path == path


def test_a_tokenizer_that_does_not_fit_is_refused(states, spiece, tmp_path):
    many = [1e300] * len(gguf_lists(spiece)["tokens"])
    for change in ({"model": "gpt2"}, {"scores": [0.5]}, {"token_type": [-1]}, {"scores": many}):
        values = {f"tokenizer.ggml.{key}": value for key, value in (gguf_lists(spiece) | change).items()}
        with pytest.raises(ValueError, match="its tokenizer"):
            gguf_tokenizer.spiece(values, "x.gguf")


@pytest.fixture
def small(tmp_path):
    """A file of two tensors, and its bytes."""
    rows = {"a": np.ones((4, 64)), "b": np.arange(6).reshape(2, 3)}
    path = made.write(tmp_path / "small.gguf", rows, kind="Q8_0", texts=[("general.name", "small")])
    return path, path.read_bytes()


def replaced(data, old, new):
    assert data.count(old) == 1
    return data.replace(old, new)


def tensor(name, *sizes, kind, offset):
    return struct.pack(f"<Q1sI{len(sizes)}QIQ", 1, name.encode(), len(sizes), *sizes, kind, offset)


A, B = tensor("a", 64, 4, kind=8, offset=0), tensor("b", 3, 2, kind=0, offset=288)
NAME = struct.pack("<Q12sIQ5s", 12, b"general.name", 8, 5, b"small")
BROKEN = {
    "version 9": (lambda d: d[:4] + struct.pack("<I", 9) + d[8:], "GGUF version 9; read are versions 2 and 3"),
    "big-endian": (lambda d: d[:4] + struct.pack(">I", 3) + d[8:], "big-endian"),
    "tensors": (lambda d: d[:8] + struct.pack("<Q", 2**60) + d[16:], "broken.*1152921504606846976 tensors"),
    "values": (lambda d: d[:16] + struct.pack("<Q", 10**9) + d[24:], "broken.*1000000000 values"),
    "cut in the header": (lambda d: d[:100], "cut short"),
    "cut in the data": (lambda d: d[:-300], "cut short: tensor"),
    "no data": (lambda d: d[:20], "cut short"),
    "unknown type": (lambda d: replaced(d, A, tensor("a", 64, 4, kind=77, offset=0)), "type number 77"),
    "unread type": (lambda d: replaced(d, A, tensor("a", 64, 4, kind=16, offset=0)), "type IQ2_XXS; read are Q4_0"),
    "columns": (lambda d: replaced(d, A, tensor("a", 65, 4, kind=8, offset=0)), "65 columns"),
    "shape": (lambda d: replaced(d, A, tensor("a", 2**40, 2**30, kind=8, offset=0)), "overlaps|cut short"),
    "dimensions": (lambda d: replaced(d, B, B[:9] + struct.pack("<I", 10**6) + B[13:]), "1000000 dimensions"),
    "offset": (lambda d: replaced(d, B, tensor("b", 3, 2, kind=0, offset=32)), "overlaps"),
    "beyond": (lambda d: replaced(d, B, tensor("b", 3, 2, kind=0, offset=2**50)), "cut short"),
    "askew": (lambda d: replaced(d, B, tensor("b", 3, 2, kind=0, offset=289)), "askew"),
    "twice": (lambda d: replaced(d, B, tensor("a", 3, 2, kind=0, offset=288)), "tensor a is there twice"),
    "kind": (lambda d: replaced(d, NAME, struct.pack("<Q12sIQ5s", 12, b"general.name", 99, 5, b"small")), "kind 99"),
    "text": (lambda d: replaced(d, b"small", b"\xff\xfeall"), "UTF-8"),
    "length": (lambda d: replaced(d, NAME, struct.pack("<Q12sIQ5s", 12, b"general.name", 8, 2**62, b"small")), "cut"),
    "list": (lambda d: replaced(d, NAME, struct.pack("<Q12sIIQb", 12, b"general.name", 9, 1, 2**62, 0)), "list of|cut"),
    "another": (lambda d: replaced(d, b"wan", b"sd3"), "architecture sd3; read are wan"),
    "page": (lambda d: b"<!doctype html>" + d, "is not a GGUF file: it seems to be a web page"),
    "empty": (lambda d: b"", "is not a GGUF file, or is cut short"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_each_corruption_has_its_words(small, case):
    path, data = small
    assert set(read_header(path)) == {"a", "b"}
    change, words = BROKEN[case]
    path.write_bytes(change(data))
    with pytest.raises(ValueError, match=words):
        read_header(path)


def test_any_cut_or_turned_byte_is_an_error_of_ours_or_none(small):
    path, data = small
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data[: rng.integers(4, len(data))] if rng.random() < 0.3 else data)
        for at in rng.integers(4, min(400, len(broken)) + 1 if len(broken) < 400 else 400, 3):
            if at < len(broken):
                broken[at] = rng.integers(256)
        path.write_bytes(broken)
        gguf._read.cache_clear()
        try:
            read_header(path)
        except ValueError as error:
            assert "small.gguf" in str(error)


def test_a_shape_that_does_not_hold_the_numbers(tmp_path):
    for said in ([3, 3], [0, 6], ["a"]):
        path = made.write(
            tmp_path / f"{said[0]}.gguf",
            {"b": np.ones((2, 3))},
            extra=lambda w, said=said: w.add_array("comfy.gguf.orig_shape.b", said),
        )
        with pytest.raises(ValueError, match="orig_shape.b is"):
            read_header(path)


def test_another_model_is_refused_by_name(tmp_path):
    names = ("blocks.0.self_attn.q.weight", "patch_embedding.weight")
    path = made.write(tmp_path / "wan.gguf", {name: np.ones((2, 32)) for name in names})
    with pytest.raises(ValueError, match="seems to be a Wan transformer; wanted a Helios transformer"):
        open_part(path, "transformer")
