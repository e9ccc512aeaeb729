"""Lines of styled text for a terminal: no markup is interpreted, and an ASCII terminal gets ASCII."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Piece = str | tuple[str, str] | Text  # text, (text, style), or what Writer.text made

TAB_WIDTH = 4
_ASCII = str.maketrans(
    {
        "–": "-",
        "…": "...",
        "→": "->",
        "└": "`",
        "─": "-",
        "█": "#",
        "·": ".",
        "⋮": ":",
        "▸": ">",
        "●": "*",
        "○": "o",
        "←": "<-",
        "↑": "^",
        "—": "-",
        "│": "|",
    }
)
_EIGHTHS = " ▏▎▍▌▋▊▉█"


class Writer:
    """Prints to a rich Console what it is given, as text and nothing else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.width = console.width
        self.ascii_only = console.options.ascii_only

    def text(self, *pieces: Piece) -> Text:
        built = Text(overflow="crop" if self.ascii_only else "ellipsis")  # rich adds an ellipsis of its own
        for piece in pieces:
            if isinstance(piece, Text):
                built.append_text(piece)
                continue
            text, style = (piece, "") if isinstance(piece, str) else piece
            built.append(self._encodable(text), style)
        return built

    def line(self, *pieces: Piece) -> None:
        """One line, cut at the terminal's edge."""
        self._console.print(self.text(*pieces), no_wrap=True, crop=True, highlight=False)

    def paragraph(self, *pieces: Piece, indent: int = 0) -> None:
        """As many lines as it takes."""
        text = self.text(*pieces)
        text.overflow = "fold"
        self._console.print(Padding(text, (0, 0, 0, indent)) if indent else text, highlight=False)

    def table(self, table: Table, indent: int = 0) -> None:
        self._console.print(Padding(table, (0, 0, 0, indent)) if indent else table, highlight=False)

    def blank(self) -> None:
        self._console.print()

    def bar(self, share: float, width: int) -> str:
        """A bar of `width` cells, full at a share of 1."""
        cells = max(0.0, min(share, 1.0)) * width
        if self.ascii_only:
            return ("#" * round(cells)).ljust(width)
        whole = int(cells)
        part = _EIGHTHS[round((cells - whole) * 8)] if whole < width else ""
        if share > 0 and not whole and part == " ":
            part = "▏"
        return ("█" * whole + part).ljust(width)[:width]

    def _encodable(self, text: str) -> str:
        if not self.ascii_only:
            return text
        return text.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")
