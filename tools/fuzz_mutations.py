"""Changes to files that make them broken or hostile: in their bytes, and in their structure."""

from __future__ import annotations

import copy
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

import numpy as np

WORDS = (
    b"NaN", b"nan", b"inf", b"-inf", b"Infinity", b"1e999", b"-1", b"0", b"1e308", b"-1e308", b"9" * 400, b"9" * 5000,
    b"0x10", b"1_000", b"true", b"null", b"", b" ", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x80\x81", b"\n", b"\r",
    b"../../../../../../../../etc/passwd", b"/etc/passwd", b"C:\\x", b"..", b".", b"/", b"a" * 300, b"a/" * 3000,
    b"{", b"}", b"[", b"]", b"[" * 3000, b'{"a":' * 3000, b'"', b"'", b",", b":", b"&a", b"*a", b"!!python/object:os.x",
    b"<", b">", b"&lol;", b"<!--", b"<![CDATA[", b"<a>" * 3000, b"\xd8\x00", b"\\ud800", b"\xe2\x80\xa8", b"#", b"%s",
)  # fmt: skip
VALUES = (
    None, True, False, [], {}, "", " ", 0, -1, -0.5, 1e308, float("nan"), float("inf"), 10**400, "x" * 300, [[[]]],
    "../../../../../../etc/passwd", "/etc/passwd", "..", "\0", "\ud800", {"a": 1}, [1, 2, 3], ["a", "b"], "12", "nan",
    1.5, 2**63, -(2**63), [None], "\n", "a\nb", "__import__('os')", 100000,
)  # fmt: skip
CODE = (
    b"import os", b"__import__('os').system('true')", b"(lambda: 1)()", b"[x for x in (1,)]", b"f'{1}'", b"a[0]",
    b"dict(type='os.system', command='true')", b"1 if 1 else 2", b"exec('1')", b"open('/etc/passwd')", b"dict = print",
    b"_base_ = './other.py'", b"custom_imports = dict(imports=['os'])", b"a = b = 1", b"dict(**{'a': 1})",
    b"'{{ fileBasename }}'", b"a.b",
)  # fmt: skip
BOMB = b'<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;">]>'
OUTSIDE = b'<!DOCTYPE a [<!ENTITY d SYSTEM "file:///etc/passwd">]>'


def _pick(rng: np.random.Generator, values):
    return values[rng.integers(len(values))]


def _bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """One change of the bytes, whatever they mean."""
    at = int(rng.integers(len(content) + 1))
    to = min(len(content), at + int(rng.integers(1, 40)))
    way = rng.integers(7)
    if way == 0:
        return content[:at]
    if way == 1:
        return content[:at] + content[to:]
    if way == 2:
        return content[:to] + content[at:]
    if way == 3:
        return content[:at] + bytes(rng.integers(0, 256, to - at, np.uint8)) + content[to:]
    if way == 4:
        return content[:at] + _pick(rng, WORDS) + content[to:]
    if way == 5 and at < len(content):
        return content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]
    return content[:at] + _pick(rng, WORDS) + content[at:]


def _recoded(content: bytes, rng: np.random.Generator) -> bytes:
    text = content.decode("utf-8", "replace")
    encoding = _pick(rng, ("utf-16", "utf-16-be", "utf-32", "utf-8-sig", "latin-1", "cp1252"))
    return text.replace("a", "\xe4", 1).encode(encoding, "replace")


def _words(content: bytes, rng: np.random.Generator) -> bytes:
    """One word between blanks, commas or brackets becomes another."""
    text = content.decode("latin-1")
    starts = [i for i in range(len(text)) if text[i].isalnum() and (i == 0 or not text[i - 1].isalnum())]
    if not starts:
        return content
    start = _pick(rng, starts)
    end = start
    while end < len(text) and (text[end].isalnum() or text[end] in "._-"):
        end += 1
    return content[:start] + _pick(rng, WORDS) + content[end:]


def _places(value) -> Iterator[tuple]:
    """Every (container, key) below a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def _json(content: bytes, rng: np.random.Generator) -> bytes:
    """One value of a JSON text is replaced, taken out, doubled, or its key is there twice."""
    value = json.loads(content)
    places = list(_places(value))
    if not places:
        return content
    container, key = _pick(rng, places)
    way = rng.integers(5)
    if way == 0:
        del container[key]
    elif way == 1 and isinstance(container, list):
        container.insert(key, container[key])
    elif way == 2 and isinstance(container, dict):
        text, name = json.dumps(value), json.dumps(key)
        return text.replace(f"{name}:", f"{name}: 7, {name}:", 1).encode()
    elif way == 3:
        other, their = _pick(rng, places)
        container[key] = json.loads(json.dumps(other[their]))
    else:
        container[key] = _pick(rng, VALUES)
    return json.dumps(value).encode()


def _lines_of_json(content: bytes, rng: np.random.Generator) -> bytes:
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    i = int(rng.integers(len(lines)))
    return b"".join([*lines[:i], _json(lines[i], rng) + b"\n", *lines[i + 1 :]])


def _xml(content: bytes, rng: np.random.Generator) -> bytes:
    """One element gets another text or name, goes, or is there twice; or the document begins with entities."""
    root = ElementTree.fromstring(content)
    elements = list(root.iter())
    element = _pick(rng, elements)
    way = rng.integers(6)
    if way == 0:
        element.text = _pick(rng, WORDS).decode("latin-1").replace("\0", "")
    elif way == 1:
        element.clear()
    elif way == 2:
        element.append(copy.deepcopy(_pick(rng, elements[-3:])))  # the same one again could be its own child
    elif way == 3:
        element.tag = _pick(rng, elements).tag
    elif way == 4:
        return _pick(rng, (BOMB, OUTSIDE)) + ElementTree.tostring(root).replace(b"</", b"&d;</", 1)
    else:
        encoding = _pick(rng, ("utf-16", "ascii", "cp037", "utf-7", "rot13", "shift_jis"))
        return f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + ElementTree.tostring(root)
    return ElementTree.tostring(root)


def _npz(content: bytes, rng: np.random.Generator) -> bytes:
    """One array gets another type, shape or content."""
    with np.load(io.BytesIO(content)) as file:
        arrays = {name: file[name] for name in file.files}
    name = _pick(rng, sorted(arrays))
    array = arrays[name]
    way = rng.integers(6)
    if way == 0:
        del arrays[name]
    elif way == 1:
        arrays[name] = array[: int(rng.integers(len(array) + 1))]
    elif way == 2:
        arrays[name] = array.astype(_pick(rng, ("float32", "float64", "int64", "uint8", "U5", "complex64", "bool")))
    elif way == 3:
        arrays[name] = array.reshape(-1)
    elif way == 4 and name == "header":
        arrays[name] = np.frombuffer(_json(array.tobytes(), rng), np.uint8)
    elif array.size and array.dtype != bool:
        limits = np.iinfo(array.dtype) if array.dtype.kind in "iu" else np.finfo(array.dtype)
        changed = array.copy().reshape(-1)
        changed[rng.integers(array.size)] = _pick(rng, (limits.min, limits.max, 0, 1))
        arrays[name] = changed.reshape(array.shape)
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def _png(content: bytes, rng: np.random.Generator) -> bytes:
    """A header that lies, with the checksum that belongs to it."""
    header = bytearray(content[16:29])
    if rng.random() < 0.5:
        struct.pack_into(">I", header, 4 * int(rng.integers(2)), _pick(rng, (0, 1, 31, 33, 5000, 2**20, 2**31 - 1)))
    else:
        header[int(rng.integers(8, 13))] = int(rng.integers(256))
    return content[:16] + bytes(header) + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:]


def _safetensors(content: bytes, rng: np.random.Generator) -> bytes:
    """Another header, with the length that belongs to it, before the same tensors."""
    (length,) = struct.unpack("<Q", content[:8])
    header = _json(content[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _tar(content: bytes, rng: np.random.Generator) -> bytes:
    """A member gets another name, kind, target or size, in an archive with checksums that are right."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as before, tarfile.open(fileobj=packed, mode="w") as after:
        members = before.getmembers()
        chosen = _pick(rng, members)
        for member in members:
            data = before.extractfile(member)
            if member is chosen:
                way = rng.integers(4)
                if way == 0:
                    member.name = _pick(rng, WORDS).decode("latin-1")
                elif way == 1:
                    member.type, member.linkname = _pick(rng, (b"1", b"2", b"5", b"6", b"S", b"x")), "../../etc/passwd"
                elif way == 2:
                    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "size": "9" * 12,
                                          "GNU.sparse.realsize": "9" * 15, "GNU.sparse.name": "x"}  # fmt: skip
                else:
                    member.size = int(_pick(rng, (0, 1, 511, 2**33, 2**60)))
            after.addfile(member, data if member.size < 2**20 else None)
    return packed.getvalue()


def _python(content: bytes, rng: np.random.Generator) -> bytes:
    """A line more, or a value that is code."""
    lines = content.splitlines()
    code = _pick(rng, CODE)
    if rng.random() < 0.5:
        lines.insert(int(rng.integers(len(lines) + 1)), code)
        return b"\n".join(lines)
    return content.replace(_pick(rng, (b"0.5", b"'SGD'", b"None", b"True")), code)


STRUCTURES: dict[str, tuple[Callable, ...]] = {
    ".json": (_json, _words, _recoded),
    ".yaml": (_json, _words, _recoded),  # those that are changed here are written as JSON, which is YAML
    ".jsonl": (_lines_of_json, _words, _recoded),
    ".xml": (_xml, _words, _recoded),
    ".txt": (_words, _words, _recoded),
    ".npz": (_npz,),
    ".png": (_png,),
    ".safetensors": (_safetensors,),
    ".tar": (_tar,),
    ".py": (_python, _words, _recoded),
}


def mutated(content: bytes, suffix: str, rng: np.random.Generator) -> bytes:
    """The content with one to three changes; the first ones of its structure, where its suffix tells it."""
    for _ in range(int(rng.integers(1, 4))):
        ways = STRUCTURES.get(suffix, ())
        if ways and rng.random() < 0.6:
            try:
                content = _pick(rng, ways)(content, rng)
                continue
            except Exception:
                pass  # an earlier change has broken the structure already
        content = _bytes(content, rng)
    return content
