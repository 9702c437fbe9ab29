"""Layers in ComfyUI's quantised forms, of random codes, written number by number from the forms' definitions; and what
they stand for, in float64. Slow and plain on purpose: nothing here is shared with what is tested."""

import json

import numpy as np

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
H4 = [[1, 1, 1, -1], [1, 1, -1, 1], [1, -1, 1, 1], [-1, 1, 1, 1]]


def e4m3(code: int) -> float:
    code = int(code)
    sign, exponent, fraction = -1 if code & 128 else 1, code >> 3 & 15, code & 7
    return sign * (fraction * 2.0**-9 if exponent == 0 else (1 + fraction / 8) * 2.0 ** (exponent - 7))


def e5m2(code: int) -> float:
    code = int(code)
    sign, exponent, fraction = -1 if code & 128 else 1, code >> 2 & 31, code & 3
    return sign * (fraction * 2.0**-16 if exponent == 0 else (1 + fraction / 4) * 2.0 ** (exponent - 15))


def hadamard(size: int) -> np.ndarray:
    """Entry [i j]: the product over the base-4 digits of i and j."""

    def entry(i, j):
        value = 1.0
        for _ in range(round(np.log(size) / np.log(4))):
            value, i, j = value * H4[i % 4][j % 4] / 2, i // 4, j // 4
        return value

    return np.array([[entry(i, j) for j in range(size)] for i in range(size)])


def turned(weight: np.ndarray, size: int) -> np.ndarray:
    return (weight.reshape(len(weight), -1, size) @ hadamard(size)).reshape(weight.shape)


def shuffled(factors: np.ndarray) -> np.ndarray:
    """Bytes [o g] at their places in tiles of 128 x 4, by cuBLAS' formula; what is over is zero."""
    rows, groups = factors.shape
    across = -(-groups // 4)
    out = np.zeros(-(-rows // 128) * across * 512, np.uint8)
    for r in range(rows):
        for g in range(groups):
            tile = (r // 128) * across + g // 4
            out[tile * 512 + (r % 32) * 16 + (r % 128 // 32) * 4 + g % 4] = factors[r, g]
    return out.reshape(-(-rows // 128) * 128, across * 4)


def packed(codes: np.ndarray, first: str = "low") -> np.ndarray:
    """Whole numbers [o i] of four bits, two to a byte; first: where the even column is."""
    codes = codes & 15
    even, odd = codes[:, ::2], codes[:, 1::2]
    return (even | odd << 4 if first == "low" else odd | even << 4).astype(np.uint8)


def random_layer(name: str, rng: np.random.Generator, rows: int, columns: int):
    """Of a form: what stands in the file by the name after the layer's, safetensors dtypes of what numpy lacks, and the
    weight [o i] in float64."""
    return FORMS[name](rng, rows, columns)


def _said(**said) -> np.ndarray:
    return np.frombuffer(json.dumps(said).encode(), np.uint8)


def _fp8(name, dtype, value, top):
    def make(rng, rows, columns):
        codes = (rng.integers(0, top, (rows, columns)) | rng.integers(0, 2, (rows, columns)) << 7).astype(np.uint8)
        scale = np.float32(rng.uniform(0.001, 0.01))
        meant = np.vectorize(value)(codes) * np.float64(scale)
        return {"weight": codes, "weight_scale": scale, "comfy_quant": _said(format=name)}, {"weight": dtype}, meant

    return make


def _int8(scalar, size=0):
    def make(rng, rows, columns):
        codes = rng.integers(-127, 128, (rows, columns)).astype(np.int8)
        scale = rng.uniform(0.001, 0.002, () if scalar else (rows, 1)).astype(np.float32)
        more = {"convrot": True, "convrot_groupsize": size} if size else {}
        meant = codes * scale.astype(np.float64)
        meant = turned(meant, size) if size else meant
        return (
            {"weight": codes, "weight_scale": scale, "comfy_quant": _said(format="int8_tensorwise", **more)},
            {},
            meant,
        )

    return make


def _nvfp4(smooth):
    def make(rng, rows, columns):
        codes = rng.integers(0, 16, (rows, columns))
        blocks = rng.integers(0x30, 0x48, (rows, columns // 16)).astype(np.uint8)
        scale = np.float32(0.003)
        values = np.array([*E2M1, *(-v for v in E2M1)])[codes]
        factors = np.vectorize(e4m3)(blocks).astype(np.float32) * scale  # by its definition in float32
        meant = values * np.repeat(factors.astype(np.float64), 16, axis=1)
        parts = {"weight": packed(codes, "high"), "weight_scale": shuffled(blocks), "weight_scale_2": scale}
        if smooth:
            parts["pre_quant_scale"] = rng.uniform(0.5, 2, columns).astype(np.float32)
            meant = meant * parts["pre_quant_scale"]
        return parts | {"comfy_quant": _said(format="nvfp4")}, {"weight_scale": "F8_E4M3"}, meant

    return make


def _mxfp8(rng, rows, columns):
    codes = (rng.integers(0, 127, (rows, columns)) | rng.integers(0, 2, (rows, columns)) << 7).astype(np.uint8)
    blocks = rng.integers(115, 120, (rows, columns // 32)).astype(np.uint8)
    meant = np.vectorize(e4m3)(codes) * np.repeat(2.0 ** (blocks.astype(float) - 127), 32, axis=1)
    parts = {"weight": codes, "weight_scale": shuffled(blocks), "comfy_quant": _said(format="mxfp8")}
    return parts, {"weight": "F8_E4M3", "weight_scale": "F8_E8M0"}, meant


def _w4a4(rng, rows, columns):
    codes = rng.integers(-7, 8, (rows, columns))
    scale = rng.uniform(0.01, 0.02, rows).astype(np.float32)
    said = _said(format="convrot_w4a4", convrot_groupsize=64)
    parts = {"weight": packed(codes).view(np.int8), "weight_scale": scale, "comfy_quant": said}
    return parts, {}, turned(codes * scale[:, None].astype(np.float64), 64)


def _w4a8(book, shifted=False):
    def make(rng, rows, columns):
        codes, groups = rng.integers(0, 16, (rows, columns)), columns // 16
        relative = rng.integers(0x50, 0x60, (rows, groups)).astype(np.uint8)  # 8 to 32
        channel = rng.uniform(0.001, 0.002, rows).astype(np.float32)
        table = np.sort(rng.uniform(-4, 4, 16)).astype(np.float32) if book else np.arange(16, dtype=np.float32) - 8
        factor = np.repeat(np.vectorize(e4m3)(relative), 16, axis=1)
        grid = np.clip(np.rint((table[codes] * factor.astype(np.float32)).astype(np.float64)), -127, 127)
        meant = grid * channel[:, None].astype(np.float64)
        parts = {"weight": packed(codes).view(np.int8), "weight_s_rel": relative, "weight_s_channel": channel}
        if book:
            parts["weight_codebook"] = table
        if shifted:
            parts["weight_correction"] = rng.uniform(-0.1, 0.1, (groups, rows)).astype(np.float32)
            meant = meant + np.repeat(parts["weight_correction"].T.astype(np.float64), 16, axis=1)
        said = _said(format="asym_w4a8_int8", group_size=16, params={"convrot_groupsize": 256})
        return parts | {"comfy_quant": said}, {"weight_s_rel": "F8_E4M3"}, turned(meant, 256)

    return make


def _awq(rng, rows, columns):
    codes = rng.integers(0, 16, (rows, columns))
    scale, zero = (rng.uniform(a, b, (columns // 64, rows)).astype(np.float32) for a, b in ((0.01, 0.02), (-0.1, 0.1)))
    meant = (codes - 8) * np.repeat(scale.T.astype(np.float64), 64, axis=1) + np.repeat(zero.T, 64, axis=1)
    parts = {"weight": packed(codes).view(np.int8), "weight_scale": scale, "weight_zeros": zero}
    return parts | {"comfy_quant": _said(format="awq_w4a16", group_size=64)}, {}, meant


FORMS = {
    "float8_e4m3fn": _fp8("float8_e4m3fn", "F8_E4M3", e4m3, 127),
    "float8_e5m2": _fp8("float8_e5m2", "F8_E5M2", e5m2, 72),
    "int8_tensorwise": _int8(True),
    "int8 by rows": _int8(False),
    "int8 convrot": _int8(False, 256),
    "int8 convrot of 16": _int8(False, 16),
    "nvfp4": _nvfp4(False),
    "nvfp4 smoothed": _nvfp4(True),
    "mxfp8": _mxfp8,
    "convrot_w4a4": _w4a4,
    "asym_w4a8_int8": _w4a8(True),
    "asym_w4a8_int8 without a codebook": _w4a8(False),
    "asym_w4a8_int8 with a correction": _w4a8(False, True),
    "awq_w4a16": _awq,
}


def write(path, tensors: dict[str, np.ndarray], dtypes: dict[str, str], metadata=None) -> None:
    """A safetensors file; dtypes: of what numpy has no name for."""
    names = {"float32": "F32", "int8": "I8", "uint8": "U8", "float16": "F16"}
    header, data = {} if metadata is None else {"__metadata__": metadata}, b""
    for name, value in tensors.items():
        value = np.asarray(value)
        raw = np.ascontiguousarray(value).tobytes()
        dtype = dtypes.get(name, names[str(value.dtype)])
        header[name] = {"dtype": dtype, "shape": value.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
