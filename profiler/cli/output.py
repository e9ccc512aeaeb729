"""What commands print on stdout: JSON, and aligned columns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

salvage_option = click.option(
    "--salvage", is_flag=True, help="Take what is whole of perf data that are cut short or damaged."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1))


def print_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under a header, each column as wide as its widest cell, the last one ragged."""
    table = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())
