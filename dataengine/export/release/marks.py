"""Marks of synthetic images inside the PNG file: an XMP packet for other programs, and the provenance as JSON.

Two `iTXt` chunks (PNG specification, third edition, section 11.3.3.4) are inserted after the header. All other bytes
stay unchanged, so the pixels stay the same, and removing the chunks restores the original file.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from dataengine.data.png import SIGNATURE, chunks

XMP_KEYWORD = "XML:com.adobe.xmp"  # XMP specification, part 3, section 1.1.5
JSON_KEYWORD = "dataengine"
# IPTC's vocabulary of digital sources (https://cv.iptc.org/newscodes/digitalsourcetype/)
_VOCABULARY = "http://cv.iptc.org/newscodes/digitalsourcetype/"
GENERATED = _VOCABULARY + "trainedAlgorithmicMedia"
PAINTED_INTO = _VOCABULARY + "compositeWithTrainedAlgorithmicMedia"  # generated objects in a real image
_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/"
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmp:CreatorTool={tool}
    xmpRights:WebStatement={url}
    Iptc4xmpExt:DigitalSourceType={source_type}>
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
   <dc:rights><rdf:Alt><rdf:li xml:lang="x-default">{rights}</rdf:li></rdf:Alt></dc:rights>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


@dataclass(frozen=True)
class Mark:
    """Marks of an image. source_type: URL of IPTC's digital source type, "" without one. details: our JSON, empty
    without one."""

    source_type: str
    details: dict


def xmp_packet(source_type: str, rights: str, url: str, tool: str) -> str:
    """An XMP packet with the source type, the licence and the creating program of an image."""
    return _XMP.format(
        tool=quoteattr(tool),
        url=quoteattr(url),
        source_type=quoteattr(source_type),
        description="Synthetic image" if source_type == GENERATED else "Real picture with synthetic objects in it",
        rights=escape(rights),
    )


def marked(png: bytes, xmp: str, details: dict) -> bytes:
    """The PNG file with both chunks added. Raises ValueError for other files and for an image with marks."""
    if read_mark(png) != Mark("", {}):
        raise ValueError("the image carries a mark already")
    end_of_header = len(SIGNATURE) + 25  # IHDR is 13 bytes long, with length, type and checksum 25
    text = json.dumps(details, sort_keys=True, ensure_ascii=False)
    return png[:end_of_header] + _itxt(XMP_KEYWORD, xmp) + _itxt(JSON_KEYWORD, text) + png[end_of_header:]


def unmarked(png: bytes) -> bytes:
    """The file before `marked`. Raises ValueError where it is not a PNG file."""
    return SIGNATURE + b"".join(
        png[start:end] for kind, start, end in chunks(png) if _keyword(png, kind, start) not in _OURS
    )


def read_mark(png: bytes) -> Mark:
    """Marks in a PNG file. Raises ValueError for other files and for damaged marks."""
    from defusedxml import ElementTree

    source_type, details = "", {}
    for kind, start, end in chunks(png):
        keyword = _keyword(png, kind, start)
        if keyword not in _OURS:
            continue
        # after the keyword: terminator, compression flag, method, empty language and empty translated keyword
        content = png[start + 8 + len(keyword) + 5 : end - 4].decode()
        if keyword == JSON_KEYWORD:
            details = json.loads(content)
            continue
        try:
            root = ElementTree.fromstring(content)
        except ElementTree.ParseError as error:
            raise ValueError(f"its XMP packet is no XML ({error})") from None
        name = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
        source_type = next((e.attrib.get(name) or e.findtext(name) or "" for e in root.iter(_DESCRIPTION)), "")
    return Mark(source_type, details)


_OURS = (XMP_KEYWORD, JSON_KEYWORD)
_DESCRIPTION = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"


def _keyword(png: bytes, kind: bytes, start: int) -> str:
    return png[start + 8 : start + 88].split(b"\0")[0].decode("latin-1") if kind == b"iTXt" else ""


def _itxt(keyword: str, text: str) -> bytes:
    """An uncompressed iTXt chunk without language."""
    content = b"iTXt" + keyword.encode("latin-1") + b"\0\0\0\0\0" + text.encode()
    return struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
