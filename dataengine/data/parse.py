"""Numbers, JSON and XML as the wild has them: every failure is a `ValueError` that says what was found."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from dataengine.data.layout import Problem
from dataengine.errors import shown
from dataengine.files import parse_json

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


LARGEST = 1e9  # pixels, metres, degrees; squares and sums of such numbers stay finite in float32


def number(value: object, field: str) -> float:
    """A finite float from JSON or text. Takes "12", " 12.0 ", "1e3"; refuses NaN, infinities, "1_000" and booleans."""
    if isinstance(value, bool) or value is None or (isinstance(value, str) and "_" in value):
        raise ValueError(f"{field} is {shown(value)}, not a number")
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{field} is {shown(value)}, not a number") from None
    except OverflowError:  # JSON knows integers of any length
        raise ValueError(f"{field} is an integer of more than 300 digits") from None
    if not math.isfinite(result):
        raise ValueError(f"{field} is {value!r}, not a finite number")
    if abs(result) > LARGEST:
        raise ValueError(f"{field} is {shown(value)}, beyond all that is measured here")
    return result


def flag(value: object) -> bool:
    """True for 1, "1", "1.0", true, "true", "yes"; False for everything else, as an absent `difficult` means 0."""
    if isinstance(value, str):
        return value.strip().lower() not in {"", "0", "0.0", "false", "no", "unspecified"}
    return bool(value)


def load_json(path: Path) -> dict:
    """The JSON object in a file; `ValueError` with line and column where it breaks off."""
    try:
        value = parse_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    if not isinstance(value, dict):
        raise ValueError(f"holds a JSON {type(value).__name__}, not an object with images and annotations")
    return value


def objects_only(path: Path, content: dict, problems: list[Problem]) -> dict:
    """A COCO-like content whose lists hold JSON objects only; the rest is named. An odd `info` or `licenses` is empty.

    Raises ValueError for a category without id or name, since annotations would lose their meaning.
    """
    lists: dict = {"info": content.get("info") if isinstance(content.get("info"), dict) else {}}
    for key in ("images", "annotations", "categories", "licenses"):
        entries = content.get(key) if isinstance(content.get(key), list) else []
        lists[key] = [entry for entry in entries if isinstance(entry, dict)]
        for i, entry in enumerate(entries):
            if not isinstance(entry, dict) and key != "licenses":
                problems.append(Problem(path, None, f"{key}[{i}] is {shown(entry)}, not an object; it is left out"))
    for i, category in enumerate(lists["categories"]):
        if "id" not in category or "name" not in category:
            raise ValueError(f"categories[{i}] has no {'name' if 'id' in category else 'id'}")
        if isinstance(category["id"], list | dict):
            raise ValueError(f"categories[{i}] has the id {shown(category['id'])}, which is no number or word")
    return content | lists


def load_xml(path: Path) -> Element:
    """The root element of an XML file, without following entities (defusedxml)."""
    import defusedxml
    import defusedxml.ElementTree

    try:
        return defusedxml.ElementTree.parse(path).getroot()
    except defusedxml.ElementTree.ParseError as error:
        raise ValueError(f"is not valid XML ({error})") from None
    except defusedxml.DefusedXmlException as error:
        raise ValueError(f"uses XML entities, which are not followed ({type(error).__name__})") from None
    except FileNotFoundError:
        raise ValueError("is missing") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except (ValueError, LookupError) as error:  # an encoding that nobody knows, or that expat does not
        raise ValueError(f"is XML in an encoding that cannot be read ({error}); save it as UTF-8") from None


def element_text(parent: Element, field: str) -> str:
    """Text of a required child element, stripped."""
    text = parent.findtext(field)
    if text is None or not text.strip():
        raise ValueError(f"<{parent.tag}> has no <{field}>")
    return text.strip()


def element_number(parent: Element, field: str) -> float:
    """Finite number in a required child element."""
    return number(element_text(parent, field), f"<{field}>")
