"""Numbers, JSON and XML from files of others; every failure is a `ValueError` that shows the value at fault."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dataengine.data.layout import Problem
from dataengine.errors import shown
from dataengine.files import parse_json, read_bytes

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


_FALSE_WORDS = frozenset({"", "false", "f", "no", "n", "none", "null", "unspecified"})
FULL_TURN = 2 * math.pi + 1e-3  # radians, with a margin for rounding
MAX_LABEL_BYTES = 2**29  # of a file that is read at once; a million objects in XML have half of it
MAX_NUMBER = 1e9  # pixels, metres, degrees; squares and sums of such numbers are finite in float32


def number(value: object, field: str) -> float:
    """A finite float from a JSON value or text. Raises ValueError for NaN, infinities, "1_000", booleans and others.

    >>> number(" 12.0 ", "width"), number("1e3", "width")
    (12.0, 1000.0)
    >>> number("1_000", "width")
    Traceback (most recent call last):
    ValueError: width is '1_000', not a number
    """
    if isinstance(value, bool) or value is None or (isinstance(value, str) and "_" in value):
        raise ValueError(f"{field} is {shown(value)}, not a number")
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{field} is {shown(value)}, not a number") from None
    except OverflowError:  # JSON integers have any length
        raise ValueError(f"{field} is an integer of more than 300 digits") from None
    if not math.isfinite(result):
        raise ValueError(f"{field} is {value!r}, not a finite number")
    if abs(result) > MAX_NUMBER:
        raise ValueError(f"{field} is {shown(value)}, beyond the limit of {MAX_NUMBER:g}")
    return result


def radians(value: object, field: str) -> float:
    """An angle in radians. Raises ValueError for more than a full turn, since degrees look like that.

    >>> radians("-1.5", "angle")
    -1.5
    """
    angle = number(value, field)
    if abs(angle) > FULL_TURN:
        raise ValueError(f"{field} is {angle:g}, more than a full turn in radians; convert it from degrees")
    return angle


def is_number(text: str) -> bool:
    """Whether a text is a number, also an infinite one.

    >>> is_number("1e3"), is_number("ship")
    (True, False)
    """
    try:
        float(text)
    except ValueError:
        return False
    return True


def csv_rows(file: Path, text: str, reader, problems: list[Problem]) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of each row that a `csv.reader` of the text has left, without blank ones.

    Here a row is a line: rows that a quotation mark without its end makes of several, and everything from where the
    text is no CSV on, become problems.

    >>> import io
    >>> text, problems = 'a,"1"\\n\\nb,"2\\nc,3\\n', []
    >>> list(csv_rows(Path("a.csv"), text, csv.reader(io.StringIO(text)), problems)), problems[0].message
    ([(1, ['a', '1'])], 'a quotation mark is not closed; lines 3 to 4 are skipped')
    """
    end = reader.line_num
    try:
        for row in reader:
            line, end = end + 1, reader.line_num
            if any("\n" in field for field in row):
                what = f"a quotation mark is not closed; lines {line} to {end} are skipped"
                problems.append(Problem(file, line, what, end - line + 1))
            elif row:
                yield line, row
    except csv.Error as error:
        left = sum(bool(line.strip()) for line in text.split("\n")[end:])
        what = f"is not CSV from here on ({error}); the rest is skipped"
        problems.append(Problem(file, reader.line_num, what, left))


def numbered_lines(text: str) -> list[tuple[int, str]]:
    """(line number from 1, line) of the lines of `files.read_text` that are not blank.

    >>> numbered_lines("a b\\n\\n c\\n")
    [(1, 'a b'), (3, ' c')]
    """
    return [(n, line) for n, line in enumerate(text.split("\n"), 1) if line and not line.isspace()]


def line_count(path: Path) -> int:
    """Number of lines that are not blank in a file of any encoding; 0 if it cannot be opened."""
    try:
        return sum(bool(line.strip()) for line in read_bytes(path, MAX_LABEL_BYTES).splitlines())
    except OSError:
        return 0


def flag(value: object) -> bool:
    """A boolean from a JSON value or text: False for 0 and less (VOC's -1 is "unspecified"), "", "false", "f", "no",
    "n", "none", "null", "unspecified" and None, else True.

    >>> flag("1"), flag(True), flag("0"), flag(None), flag("-1")
    (True, True, False, False, False)
    """
    if isinstance(value, str):
        word = value.strip().lower()
        return float(word) > 0 if is_number(word) else word not in _FALSE_WORDS
    return value > 0 if isinstance(value, int | float) else bool(value)


def stated_size(width: object, height: object) -> tuple[int, int] | None:
    """(width, height) in pixels by an annotation, None if it does not state two whole numbers above 0.

    >>> stated_size("640", 480.0), stated_size(None, 480)
    ((640, 480), None)
    """
    try:
        size = int(number(width, "width")), int(number(height, "height"))
    except ValueError:
        return None
    return size if min(size) > 0 else None


def load_json(path: Path) -> dict:
    """The JSON object in a file. Raises ValueError, with line and column, for anything else."""
    try:
        value = parse_json(read_bytes(path, MAX_LABEL_BYTES))
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    if not isinstance(value, dict):
        raise ValueError(f"holds a JSON {type(value).__name__}, not an object with images and annotations")
    return value


def objects_only(path: Path, content: dict, problems: list[Problem]) -> dict:
    """COCO-like content with lists that have JSON objects only; other entries become problems, an invalid `info` empty.

    Raises ValueError for a category without id or name, which annotations need.
    """
    lists: dict = {"info": content.get("info") if isinstance(content.get("info"), dict) else {}}
    for key in ("images", "annotations", "categories", "licenses"):
        entries = content.get(key) if isinstance(content.get(key), list) else []
        lists[key] = [entry for entry in entries if isinstance(entry, dict)]
        problems += [] if key == "licenses" else not_objects(path, key, entries, 0)
    for i, category in enumerate(lists["categories"]):
        if "id" not in category or "name" not in category:
            raise ValueError(f"categories[{i}] has no {'name' if 'id' in category else 'id'}")
        if isinstance(category["id"], list | dict):
            raise ValueError(f"categories[{i}] has the id {shown(category['id'])}, not a number or text")
    return content | lists


def not_objects(path: Path, key: str, entries: Sequence, first: int) -> list[Problem]:
    """The problems of those entries of a list in a JSON file that are no JSON objects. first: number of the first."""
    wrong = [(i, entry) for i, entry in enumerate(entries, first) if not isinstance(entry, dict)]
    return [Problem(path, None, f"{key}[{i}] is {shown(entry)}, not an object; it is skipped") for i, entry in wrong]


def load_xml(path: Path) -> Element:
    """The root element of an XML file, with tags without namespaces. Entities are not followed (defusedxml). Raises
    ValueError for invalid files."""
    import defusedxml
    import defusedxml.ElementTree

    try:
        root = defusedxml.ElementTree.fromstring(read_bytes(path, MAX_LABEL_BYTES))
    except defusedxml.ElementTree.ParseError as error:
        raise ValueError(f"is not valid XML ({error})") from None
    except defusedxml.DefusedXmlException as error:
        raise ValueError(f"uses XML entities, which are not followed ({type(error).__name__})") from None
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except (ValueError, LookupError) as error:  # an encoding unknown to Python or to expat
        raise ValueError(f"is XML in an encoding that cannot be read ({error}); save it as UTF-8") from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def element_text(parent: Element, field: str) -> str:
    """Text of a required child element, with single blanks. Raises ValueError if it is missing or empty."""
    text = " ".join((parent.findtext(field) or "").split())
    if not text:
        raise ValueError(f"<{parent.tag}> has no <{field}>")
    return text


def element_number(parent: Element, field: str) -> float:
    """Finite number in a required child element. Raises ValueError if it is missing or something else."""
    return number(element_text(parent, field), f"<{field}>")
