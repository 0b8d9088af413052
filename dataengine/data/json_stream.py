"""JSON files whose long lists are read entry by entry, so that memory does not grow with the file.

Accepts and refuses what `files.parse_json` does, with the same messages.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from dataengine.files import INVALID_JSON, json_fault, open_regular, refuse_surrogates, unique_keys

CHUNK_BYTES = 2**20
NO_OBJECT = "not an object with images and annotations"
BLOCK_ENTRIES = 256  # that are handed over at a time; more of them would be looked at by the garbage collector
_BLANKS = re.compile(r"[ \t\n\r]*")
_scan = json.JSONDecoder(object_pairs_hook=unique_keys).scan_once


def stream_json(path: Path, lists: Mapping[str, Callable[[list], None]]) -> dict:
    """The JSON object in a file. Lists at these keys are handed over in blocks of entries and are empty in the result.

    Raises ValueError for a file that cannot be read, invalid JSON, and other values than objects.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = Path(folder, "a.json").write_text('{"n": 1, "images": [{"id": 1}, {"id": 2}]}')
    ...     stream_json(Path(folder, "a.json"), {"images": print})
    [{'id': 1}, {'id': 2}]
    {'n': 1, 'images': []}
    """
    try:
        with open_regular(path) as stream:
            return _Text(stream).root(lists)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except INVALID_JSON as error:
        raise ValueError(json_fault(error)) from None


class _Text:
    """A part of the text of a file, `text`, of which all before `at` is read."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.text, self.at, self.chunk = stream, "", 0, CHUNK_BYTES
        self.lines = self.columns = 0  # before `text`
        first = stream.read(CHUNK_BYTES)
        self.decoder = codecs.getincrementaldecoder(json.detect_encoding(first))()
        self._add(first)

    def _add(self, content: bytes) -> None:
        self.ended = not content
        self.text += self.decoder.decode(content, self.ended)
        self.has_escapes = "\\u" in self.text

    def _more(self) -> None:
        """Read on, twice as much as the last time if that did not bring a whole value."""
        done, self.chunk = self.text[: self.at], CHUNK_BYTES if self.at else 2 * self.chunk
        if n := done.count("\n"):
            self.lines, self.columns = self.lines + n, len(done) - done.rfind("\n") - 1
        else:
            self.columns += len(done)
        self.text, self.at = self.text[self.at :], 0
        self._add(self.stream.read(self.chunk))

    def fault(self, message: str, at: int) -> json.JSONDecodeError:
        """The error that `json.loads` raises for the whole text."""
        error = json.JSONDecodeError(message, self.text, at)
        if error.lineno == 1:
            error.colno += self.columns
        error.lineno += self.lines
        return error

    def next(self) -> str:
        """The next character that is no blank, "" at the end."""
        while True:
            self.at = _BLANKS.match(self.text, self.at).end()
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._more()

    def value(self) -> object:
        """The value that begins here."""
        while True:
            try:
                value, end = _scan(self.text, self.at)
            except StopIteration as error:
                fault = self.fault("Expecting value", error.value)
            except json.JSONDecodeError as error:
                fault = self.fault(error.msg, error.pos)
            else:
                if end < len(self.text) or self.ended:  # a number may go on behind the end
                    if self.has_escapes:
                        refuse_surrogates(self.text[self.at : end], value)
                    self.at = end
                    return value
                fault = None
            if self.ended:
                raise fault
            self._more()

    def root(self, lists: Mapping[str, Callable[[list], None]]) -> dict:
        """See `stream_json`."""
        if self.next() != "{":
            value = self.value()
            self._end()
            raise ValueError(f"holds a JSON {type(value).__name__}, {NO_OBJECT}")
        self.at += 1
        content: dict[str, object] = {}
        while (character := self.next()) != "}" or content:
            if character != '"':
                raise self.fault("Expecting property name enclosed in double quotes", self.at)
            key = self.value()
            if key in content:
                unique_keys([(key, None), (key, None)])
            if self.next() != ":":
                raise self.fault("Expecting ':' delimiter", self.at)
            self.at += 1
            if self.next() == "[" and key in lists:
                self._entries(lists[key])
                content[key] = []
            else:
                content[key] = self.value()
            if (character := self.next()) != ",":
                break
            self.at += 1
        if character != "}":
            raise self.fault("Expecting ',' delimiter", self.at)
        self.at += 1
        self._end()
        return content

    def _end(self) -> None:
        if self.next():
            raise self.fault("Extra data", self.at)

    def _entries(self, take: Callable[[list], None]) -> None:
        self.at += 1
        block: list = []
        if self.next() == "]":
            self.at += 1
            return
        while True:
            block.append(self.value())
            if len(block) == BLOCK_ENTRIES:
                take(block)
                block = []
            character = self.text[self.at : self.at + 1]
            if character != ",":
                character = self.next()
            if character != ",":
                break
            self.at += 1
            if self.text[self.at : self.at + 1] != "{":
                self.next()
        if character != "]":
            raise self.fault("Expecting ',' delimiter", self.at)
        self.at += 1
        if block:
            take(block)
