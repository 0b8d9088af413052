"""What the tables on a terminal have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

LONGEST_WHOLE_NAME = 24  # cells of a terminal of a name that is not folded


def keep_names_whole(table: Table, names: Iterable[str]) -> None:
    """Let the first column of a table hold these names on one line each, at the expense of the others; where one is
    longer than 24 cells, they are folded. They are never cut off.

    >>> from rich.table import Table
    >>> table = Table("class", "objects")
    >>> keep_names_whole(table, ["van", "Wassermotorräder"])
    >>> table.columns[0].no_wrap
    True
    """
    from rich.cells import cell_len

    table.columns[0].overflow = "fold"
    table.columns[0].no_wrap = max(map(cell_len, names), default=0) <= LONGEST_WHOLE_NAME
