"""Extension of griffe (mkdocs.yml): docstrings in plain text as Markdown, with examples as code and fields as lists."""

from __future__ import annotations

import re

import griffe

EXAMPLE = re.compile(r"(?:^>>>.*\n?(?:^(?!\s*$|>>>).*\n?)*)+", re.MULTILINE)  # up to a blank line
FIELD = re.compile(r"([a-z_]+(?:, [a-z_]+)*):\s+(?=\S)")  # "boxes: float32 (N, 5)", or of several names


class MarkdownDocstrings(griffe.Extension):
    """Puts each block that begins with >>> between fences, and makes lists of paragraphs that consist of fields."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring is not None:
            paragraphs = obj.docstring.value.split("\n\n")
            text = "\n\n".join(fields_as_list(paragraph) for paragraph in paragraphs)
            obj.docstring.value = EXAMPLE.sub(lambda m: f"\n```pycon\n{m[0].rstrip()}\n```\n", text)


def fields_as_list(paragraph: str) -> str:
    """A paragraph of fields, a line each with indented further lines, as a Markdown list; any other as it is."""
    lines = paragraph.splitlines()
    if sum(bool(FIELD.match(line)) for line in lines) < 2 or not all(
        re.match(rf"\s|{FIELD.pattern}", x) for x in lines
    ):
        return paragraph
    return "\n".join(
        FIELD.sub(r"- `\1`: ", line, count=1) if FIELD.match(line) else f"  {line.strip()}" for line in lines
    )
