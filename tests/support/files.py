"""The small files of a published folder."""

TOKENIZER = {"tokenizer.json": b"{}\r\n", "spiece.model": b"\n\x05\n\x01a\xff"}


def small_files(folder):
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if "safetensors" not in name}
