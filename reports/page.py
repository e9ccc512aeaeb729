"""Self-contained HTML pages: one template, one style sheet, nothing fetched, no script.

Every page carries a content security policy that allows its own style sheet (by hash) and pictures
inside the page, and nothing else. Jinja2 escapes all data; data stands in text and in quoted
attributes only.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from reports.visible import command_line, count, counted, interval, percent, place, prose, visible

_TEMPLATES = Path(__file__).parent / "templates"


def sentence(text: str) -> Markup:
    """A sentence in which `backticks` enclose code."""
    pieces = [escape(piece) for piece in prose(text).split("`")]
    if len(pieces) % 2 == 0:  # a backtick without its partner is just a backtick
        return escape(prose(text))
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(pieces))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for filter_ in (command_line, count, counted, percent, prose, sentence, visible):
        environment.filters[filter_.__name__] = filter_
    environment.globals.update(place=place, interval=interval)
    return environment


def render(template: str, **values: Any) -> bytes:
    """The page as UTF-8. Equal values give equal bytes."""
    css = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    sheet = Markup(css)  # noqa: S704  our own file
    text = _environment().get_template(template).render(css=sheet, policy=policy, **values)
    return text.encode("utf-8")


def write_whole(path: Path, content: bytes) -> None:
    """The whole file under its name, or none of it. Raises OSError (a full disk, no permission)."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
