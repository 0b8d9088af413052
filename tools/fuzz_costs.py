"""Small files that may cost much time or memory, and what a reader spends on each, measured in a child process."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import signal
import struct
import sys
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from fuzz_mutations import _pick, _places

MAX_SECONDS, MAX_BYTES = 10, 2**30  # of CPU time and of resident memory for one input: the budget of docs/trust.md
HANGING_S = 30  # seconds after which a child that does nothing is ended
MANY, LONG = 50_000, 1_000_000  # entries, and characters of a name
ESCAPES = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202e"
DIGITS = "9" * 5000


def _entries(value) -> list[tuple]:
    """(list, index) of every object in a list, below a JSON value."""
    return [
        (holder, key) for holder, key in _places(value) if isinstance(holder, list) and isinstance(holder[key], dict)
    ]


def _many_keys(value, rng) -> str:
    text = json.dumps(value)
    more = ", ".join(f'"k{i}": 1' for i in range(3 * MANY))
    at = _pick(rng, [match.end() for match in re.finditer(r"\{", text)])
    return f'{text[:at]}{more}, "k{3 * MANY - 1}": 2{"" if text[at] == "}" else ", "}{text[at:]}'


def _many_entries(value, rng) -> str:
    holder, key = _pick(rng, _entries(value) or [(value := [value], 0)])
    entry = holder[key]
    numbered = [{**entry, "id": i + 10} if "id" in entry else entry for i in range(MANY)]
    holder[key:] = numbered
    return json.dumps(value)


def _many_names(value, rng) -> str:
    """Each copy of an entry has another name, and other numbers."""
    holder, key = _pick(rng, _entries(value) or [(value := [value], 0)])
    text = json.dumps(holder[key])
    words = re.findall(r'": ("[^"]+"|\d+)', text)
    word = _pick(rng, words) if words else text
    holder[key:] = [
        json.loads(text.replace(word, f'"x{i}"' if word[0] == '"' else str(i))) for i in range(MANY + 10_000)
    ]
    return json.dumps(value)


def _many_crowds(value, rng) -> str:
    holder, key = _pick(
        rng, [pair for pair in _entries(value) if "bbox" in pair[0][pair[1]]] or _entries(value) or [([value], 0)]
    )
    entry = holder[key]
    holder += [{**entry, "iscrowd": 1, "ignore": 1, "bbox": [i % 20, i % 13, 3 + i / MANY, 4]} for i in range(MANY)]
    return json.dumps(value)


def _value(value, rng, new) -> str:
    holder, key = _pick(rng, list(_places(value)) or [([value], 0)])
    holder[key] = "@here"
    return json.dumps(value).replace('"@here"', new)


JSON_WAYS = {
    "many keys, one double": _many_keys,
    "many entries": _many_entries,
    "many names": _many_names,
    "many crowds": _many_crowds,
    "long text": lambda value, rng: _value(value, rng, f'"{"x" * LONG}"'),
    "very long text": lambda value, rng: _value(value, rng, f'"{"x" * 20 * LONG}"'),
    "escapes": lambda value, rng: _value(value, rng, json.dumps(ESCAPES)),
    "long number": lambda value, rng: _value(value, rng, DIGITS),
    "very long number": lambda value, rng: _value(value, rng, "0." + 1000 * DIGITS),
    "deep": lambda value, rng: _value(value, rng, "[" * 200_000 + "]" * 200_000),
    "deep objects": lambda value, rng: _value(value, rng, '{"a":' * 100_000 + "1" + "}" * 100_000),
    "long list": lambda value, rng: _value(value, rng, f"[{', '.join(map(str, range(6 * MANY)))}]"),
    "list of lists": lambda value, rng: _value(value, rng, f"[{', '.join(['[1, 2, 3, 4, 5, 6.5]'] * MANY)}]"),
    "many names in a list": lambda value, rng: _value(value, rng, json.dumps([f"n{i}" for i in range(60_000)])),
    "many pairs": lambda value, rng: _value(value, rng, json.dumps({str(i): f"n{i}" for i in range(60_000)})),
    "blanks": lambda value, rng: _value(value, rng, " " * 20 * LONG + "1"),
    "half characters": lambda value, rng: _value(value, rng, f'"{chr(92)}ud800' + f'{chr(92)}ud83d' * MANY + '"'),
}  # fmt: skip


def _json(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    name = _pick(rng, sorted(JSON_WAYS))
    return name, JSON_WAYS[name](json.loads(content), rng).encode()


def _lines_of_json(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    lines = content.splitlines()
    at = int(rng.integers(len(lines)))
    if rng.random() < 0.2:
        return "many lines", b"\n".join([*lines, *[lines[at]] * (MANY // 2)])
    name, lines[at] = _json(lines[at], rng)
    return name, b"\n".join(lines)


def _xml(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    text = ElementTree.tostring(ElementTree.fromstring(content)).decode()
    root = ElementTree.fromstring(content)
    parents = [element for element in root.iter() if len(element)]
    opening = _pick(rng, [match.end() - 1 for match in re.finditer(r"<\w+>", text)])
    inside = opening + 1
    ways = {
        "long attribute": lambda: f'{text[:opening]} a="{"x" * 20 * LONG}"{text[opening:]}',
        "many attributes": lambda: text[:opening] + "".join(f' a{i}="1"' for i in range(3 * MANY)) + text[opening:],
        "long text": lambda: text[:inside] + "x" * LONG + text[inside:],
        "very long text": lambda: text[:inside] + "x" * 20 * LONG + text[inside:],
        "long number": lambda: text[:inside] + DIGITS + text[inside:],
        "deep": lambda: text[:inside] + "<a>" * 3 * MANY + "</a>" * 3 * MANY + text[inside:],
        "long comment": lambda: f"{text[:inside]}<!--{'x' * 20 * LONG}-->{text[inside:]}",
        "many names of elements": lambda: text[:inside] + "".join(f"<a{i}/>" for i in range(3 * MANY)) + text[inside:],
        "many name spaces": lambda: (
            text[:opening] + "".join(f' xmlns:a{i}="u{i}"' for i in range(MANY)) + text[opening:]
        ),
        "escapes": lambda: text[:inside] + "&#x9b;31m \u202e" + text[inside:],
        "entity": lambda: f'<!DOCTYPE a [<!ENTITY b "{"x" * LONG}">]>{text.replace("</", "&b;</")}',
    }
    copied = ElementTree.tostring(_pick(rng, list(_pick(rng, parents) if parents else [root]))).decode()
    names = re.findall(r">([^<>]+)<", copied)
    word = _pick(rng, names) if names else "x"
    ways["many elements"] = lambda: text.replace(copied, copied * (MANY // 2), 1)
    ways["many names"] = lambda: text.replace(
        copied, "".join(copied.replace(word, f"{word}{i}") for i in range(MANY // 2)), 1
    )
    name = _pick(rng, sorted(ways))
    return name, ways[name]().encode()


def _text(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    text = content.decode("latin-1")
    lines = text.splitlines() or [""]
    at = int(rng.integers(len(lines)))
    words = lines[at].replace(",", " ").split() or ["x"]
    word = _pick(rng, words)
    ways = {
        "many lines": lambda: [*lines, *[lines[at]] * 3 * MANY],
        "many names": lambda: [*lines, *(lines[at].replace(word, f"{word}{i}") for i in range(MANY + 10_000))],
        "many numbers": lambda: [*lines, *(lines[at].replace(word, str(i)) for i in range(MANY + 10_000))],
        "one long line": lambda: [" ".join(lines * (30 * LONG // max(len(text), 1)))],
        "one long line of commas": lambda: [lines[at] + "," * 30 * LONG],
        "blank lines": lambda: [*lines, "\n" * 20 * LONG],
        "long word": lambda: [line.replace(word, "x" * LONG) for line in lines],
        "many long words": lambda: [*lines, *[lines[at].replace(word, "x" * 300)] * MANY],
        "long number": lambda: [line.replace(word, DIGITS) for line in lines],
        "very long number": lambda: [line.replace(word, "0." + 1000 * DIGITS) for line in lines],
        "many faults": lambda: [*lines, *[lines[at].replace(word, "nan")] * 3 * MANY],
        "points in a row": lambda: [f"{lines[at]} {' '.join(['0.1 0.2'] * 4 * MANY)}"],
        "escapes": lambda: [line.replace(word, ESCAPES) for line in lines],
        "headers": lambda: [*[f"imagesource: {i}" for i in range(3 * MANY)], *lines],
        "brackets": lambda: [line.replace(word, "(" * MANY) for line in lines],
        "pairs": lambda: [line.replace(word, "[" + "(1, 2) " * 40 + "x") for line in lines],
        "quotes": lambda: [line.replace(word, '"' * MANY) for line in lines],
    }
    name = _pick(rng, sorted(ways))
    return name, "\n".join(ways[name]()).encode("utf-8", "replace")


def _yaml(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    text = content.decode()
    nine = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]" for i in range(9))
    field = _pick(rng, ("n", "seed", "name", "classes", "altitude", "names"))
    ways = {
        "base 60": lambda: f"{field}: 1{':1' * 3 * MANY}",
        "base 60 fraction": lambda: f"{field}: 1{':1' * MANY}.5",
        "aliases": lambda: nine,
        "merges": lambda: "a: &a {b: 1}\n" + "\n".join(f"c{i}: {{<<: *a}}" for i in range(3000)),
        "many keys": lambda: "\n".join(f"k{i}: 1" for i in range(MANY)),
        "many names": lambda: f"{field}: [{', '.join(f'c{i}' for i in range(60_000))}]",
        "fewer names": lambda: f"{field}: [{', '.join(f'c{i}' for i in range(12_000))}]",
        "deep": lambda: f"{field}: {'[' * MANY}",
        "deep blocks": lambda: "\n".join(f"{' ' * i}a:" for i in range(600)),
        "questions": lambda: "? " * MANY,
        "long text": lambda: f"{field}: {'x' * LONG}",
        "shorter text": lambda: f"{field}: {'x' * 200_000}",
        "long number": lambda: f"{field}: {DIGITS}",
        "hexadecimal": lambda: f"{field}: 0x{'f' * 200_000}",
        "escapes": lambda: f"{field}: {json.dumps(ESCAPES)}",
        "tags": lambda: "\n".join(f"a{i}: !!python/object/apply:os.system [x]" for i in range(1000)),
        "quoted lines": lambda: f'{field}: "{chr(10) * 200_000}"',
        "comments": lambda: "#" * 200_000 + "\n" + text,
        "documents": lambda: "--- {}\n" * 20_000,
    }
    if content[:1] in b"{[" and rng.random() < 0.4:
        return _json(content, rng)
    name = _pick(rng, sorted(ways))
    more = ways[name]()
    rest = (
        ""
        if content[:1] in b"{["
        else "\n".join(line for line in text.splitlines() if not line.startswith(f"{field}:"))
    )
    return name, f"{rest}\n{more}\n".encode()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _picture(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """A picture that asks for much: by its header in its own format, or a PNG in its place."""
    packed = zlib.compress(bytes(200 * LONG), 9)
    sides = _pick(rng, ((60_000, 60_000), (2**31 - 1, 1), (32_000, 32_000), (1, 2**30), (20_000, 20_000)))
    depth, colour = _pick(rng, ((8, 2), (16, 6), (1, 0), (16, 0)))
    start = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", *sides, depth, colour, 0, 0, 0))
    end = _chunk(b"IEND", b"")
    small = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 24, 8, 2, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress(bytes(24 * 97)))
    ways = {
        "sides by the header": lambda: start + _chunk(b"IDAT", packed) + end,
        "compressed text": lambda: small + _chunk(b"zTXt", b"Comment\0\0" + packed) + pixels + end,
        "compressed profile": lambda: small + _chunk(b"iCCP", b"icc\0\0" + packed) + pixels + end,
        "many texts": lambda: small + _chunk(b"tEXt", b"a\0" + b"b" * 100) * 3 * MANY + pixels + end,
        "long exif": lambda: small + _chunk(b"eXIf", b"MM\0*\0\0\0\x08" + b"\xff" * 5 * LONG) + pixels + end,
        "many frames": lambda: small + _chunk(b"acTL", struct.pack(">II", MANY, 0)) + pixels * 1000 + end,
        "much behind the pixels": lambda: small + pixels + _chunk(b"tEXt", b"a\0" + b"b" * 20 * LONG) + end,
        "tiff": lambda: _tiff(_pick(rng, ((60_000, 60_000), (2**32 - 1, 2**32 - 1), (30_000, 30_000))), rng),
        "tiff loop": lambda: b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 256, 4, 1, 5) + struct.pack("<I", 8),
        "more bytes": lambda: content + bytes(30 * LONG),
        "repeated": lambda: content * 1000,
    }
    name = _pick(rng, sorted(ways))
    return name, ways[name]()


def _tiff(sides: tuple[int, int], rng: np.random.Generator) -> bytes:
    """A TIFF of this size by its header; its strips are compressed zeros, or it says that they are."""
    strip = zlib.compress(bytes(50 * LONG), 9)
    compression = _pick(rng, (1, 5, 8, 32773, 34712, 50000))
    counts = _pick(rng, (1, 2**28))
    bits, bands = _pick(rng, (8, 16, 32)), _pick(rng, (1, 3, 60_000))
    tags = [(256, 4, 1, sides[0]), (257, 4, 1, sides[1]), (258, 3, 1, bits), (259, 3, 1, compression), (262, 3, 1, 1),
            (273, 4, counts, 200), (277, 3, 1, bands), (278, 4, 1, sides[1]), (279, 4, counts, len(strip))]  # fmt: skip
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return (b"II*\0\x08\0\0\0" + directory).ljust(200, b"\0") + strip


def _npy(shape: str, kind: str, data: bytes = b"") -> bytes:
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + data


def _npz(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = _pick(rng, sorted(members))
    big = bytes(150 * LONG)
    ways = {
        "int8 zeros": lambda: {name: _npy(f"({len(big)},)", "|i1", big)},
        "uint8 zeros in rows": lambda: {name: _npy(f"({len(big) // 5}, 5)", "|u1", big)},
        "a huge shape": lambda: {name: _npy("(1000000000000,)", "<i8")},
        "a shape of zeros": lambda: {name: _npy("(0, 9223372036854775807)", "<i8")},
        "negative shape": lambda: {name: _npy("(-1, -5)", "<i4")},
        "objects": lambda: {name: _npy("(3,)", "|O", b"cos\nsystem\n(S'true'\ntR.")},
        "a long header": lambda: {name: _npy(f"({'1, ' * 20_000})", "<i4")},
        "a deep header": lambda: {name: _npy("(" * 20_000 + ")" * 20_000, "<i4")},
        "many members": lambda: {f"m{i}.npy": _npy("(0,)", "<i4") for i in range(MANY)},
        "no pixels": lambda: {name: b""},
        "texts": lambda: {name: _npy("(1000,)", "<U40000", bytes(160 * LONG))},
        "header entries": lambda: {"header.npy": _header_of(members, rng)},
    }
    chosen = _pick(rng, sorted(ways))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for member, data in (members | ways[chosen]()).items():
            file.writestr(member, data)
    return chosen, packed.getvalue()


def _header_of(members: dict[str, bytes], rng: np.random.Generator) -> bytes:
    header = np.load(io.BytesIO(members["header.npy"])).tobytes()
    changed = io.BytesIO()
    np.save(changed, np.frombuffer(_json(header, rng)[1], np.uint8))
    return changed.getvalue()


def _safetensors(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    if rng.random() < 0.3:
        return "length of the header", struct.pack("<Q", int(_pick(rng, (2**63, 2**40, 10**8)))) + content[8:]
    name, header = _json(content[8 : 8 + length], rng)
    return name, struct.pack("<Q", len(header)) + header + content[8 + length :]


def _tar(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    import tarfile

    packed = io.BytesIO()
    way = _pick(rng, ("many members", "long names", "long comments", "repeated", "a huge size"))
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for i in range(20_000 if way == "many members" else 3):
            member = tarfile.TarInfo(f"{'x' * LONG if way == 'long names' else 'x'}{i}")
            if way == "long comments":
                member.pax_headers = {f"k{k}": "x" * 1000 for k in range(3000)}
            archive.addfile(member)
    added = packed.getvalue()
    if way == "repeated":
        return way, content.rstrip(b"\0") * 200
    if way == "a huge size":
        return way, content[:124] + b"77777777777\0" + content[136:]
    return way, added[: -2 * 512] + content


def _code(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    ways = {
        "deep": lambda: f"a = {'[' * 5000}{']' * 5000}",
        "deep signs": lambda: f"a = {'-' * MANY}1",
        "long sum": lambda: f"a = {'+'.join(['1'] * MANY)}",
        "long text": lambda: f"a = '{'x' * 20 * LONG}'",
        "long number": lambda: f"a = {DIGITS}",
        "many lines": lambda: "\n".join(f"a{i} = {i}" for i in range(MANY)),
        "many values": lambda: f"a = [{', '.join(map(str, range(6 * MANY)))}]",
        "many keys": lambda: f"a = dict({', '.join(f'k{i}=1' for i in range(MANY))})",
        "powers": lambda: "a = 9 ** 9 ** 9",
        "product": lambda: "a = [0] * 10 ** 10",
        "brackets": lambda: "a = " + "(" * MANY,
    }
    name = _pick(rng, sorted(ways))
    return name, content + b"\n" + ways[name]().encode() + b"\n"


def _onnx(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    from fuzz_onnx import WAYS

    name = _pick(rng, sorted(WAYS))
    return name, WAYS[name]()


STRUCTURES: dict[str, Callable] = {
    ".json": _json, ".geojson": _json, ".jsonl": _lines_of_json, ".xml": _xml, ".txt": _text, ".csv": _text,
    ".yaml": _yaml, ".yml": _yaml, ".npz": _npz, ".safetensors": _safetensors, ".tar": _tar, ".py": _code,
    ".onnx": _onnx, ".png": _picture, ".jpeg": _picture, ".jpg": _picture, ".tiff": _picture, ".bmp": _picture,
    ".webp": _picture,
}  # fmt: skip
PLACES = ("a pipe", "a device", "a folder", "a link to itself", "400 MB of zeros", "nothing")


def put_hostile(file: Path, rng: np.random.Generator) -> str:
    """Put something hostile in place of a valid file; says what."""
    way = STRUCTURES.get(file.suffix)
    if way is not None and rng.random() < 0.88:
        try:
            name, content = way(file.read_bytes(), rng)
            file.write_bytes(content)
            return name
        except (ValueError, IndexError, KeyError):
            pass  # a structure that this way does not fit
    place = _pick(rng, PLACES)
    file.unlink()
    if place == "a pipe":
        os.mkfifo(file)
    elif place == "a device":
        file.symlink_to("/dev/zero")
    elif place == "a folder":
        file.mkdir()
    elif place == "a link to itself":
        file.symlink_to(file.name)
    elif place == "nothing":
        file.write_bytes(b"")
    else:
        with open(file, "wb") as stream:
            stream.truncate(400 * LONG)
    return place


@dataclass(frozen=True)
class Cost:
    """What an input cost: CPU seconds, peak resident bytes, and what became of it: accepted, refused, crash or hang."""

    way: str
    seconds: float
    peak: int
    outcome: str
    said: str

    @property
    def fault(self) -> str:
        """What exceeds the budget or was no clear answer, "" if nothing."""
        if self.outcome in ("crash", "hang"):
            return self.outcome
        if self.seconds > MAX_SECONDS:
            return f"{self.seconds:.1f} s"
        return f"{self.peak / 2**20:.0f} MB" if self.peak > MAX_BYTES else ""


def _read_and_say(read: Callable[[], object], allowed: tuple[type[BaseException], ...], inlet: int) -> None:
    """Write into a pipe what becomes of an input: accepted, refused or crash, and what is said about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    seconds = int(2 * MAX_SECONDS) + 20
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    outcome, said = "accepted", ""
    try:
        read()
    except allowed as error:
        outcome, said = "refused", str(error)
    except BaseException:
        outcome, said = "crash", traceback.format_exc()[-3000:]
    if outcome == "refused" and not said.isprintable():
        outcome, said = "crash", f"an error with control characters or several lines: {said!r}"
    os.write(inlet, f"{outcome}\n{said}".encode("utf-8", "replace")[:60_000])


def cost(read: Callable[[], object], allowed: tuple[type[BaseException], ...], way: str) -> Cost:
    """What reading costs in a child process, which is ended where it exceeds twice the budget."""
    outlet, inlet = os.pipe()
    sys.stdout.flush(), sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            _read_and_say(read, allowed, inlet)
        finally:
            os._exit(0)  # whatever happens, the child does not go on as a second parent
    os.close(inlet)
    before, since, killed = "", time.monotonic(), ""
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        try:
            resident = int(Path(f"/proc/{child}/statm").read_text().split()[1]) * resource.getpagesize()
            ticks = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11:13]
        except (OSError, IndexError):
            continue
        if ticks != before:
            before, since = ticks, time.monotonic()
        if resident > 2 * MAX_BYTES or time.monotonic() > since + HANGING_S:
            killed = "accepted" if resident > 2 * MAX_BYTES else "hang"
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    with os.fdopen(outlet, "rb") as stream:
        outcome, _, said = stream.read().decode("utf-8", "replace").partition("\n")
    if not outcome:
        outcome, said = killed or "crash", f"ended with status {status}"
    return Cost(way, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, outcome, said)
