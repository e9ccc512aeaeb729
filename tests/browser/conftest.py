"""A headless Chromium, driven by Playwright; pages are opened from files, as a user opens a report."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser of this machine; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    require(program, "no Chromium here (package chromium)")
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415
    except ImportError:
        require(False, "Playwright is not installed (pip install playwright)")
        raise
    # Chromium's own sandbox needs rights that root in a container lacks.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=options)
        yield started
        started.close()


class OpenedPage:
    """A page, and what happened while it was opened and used."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: self.requests.append(request.url))


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., OpenedPage]]:
    """open_page(path, width=1280, scheme="light") opens a file in a fresh context."""
    with contextlib.ExitStack() as stack:

        def opened(path: Path, *, width: int = 1280, scheme: str = "light") -> OpenedPage:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            stack.callback(context.close)
            result = OpenedPage(context.new_page())
            result.page.goto(path.as_uri())
            return result

        yield opened
