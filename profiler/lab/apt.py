"""Debian's archive through this machine's own apt, without root: a private configuration beside its own.

The mirrors are the ones that apt already uses here; no address is written in this program. Signatures are
checked against Debian's archive keyring, as apt always does with `signed-by`.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from profiler import process
from profiler.errors import MissingError

Progress = Callable[[str, float | None], None]

MIRROR_VARIABLE = "WHYERRNO_DEBIAN_MIRROR"
CODENAMES = ("bullseye", "bookworm", "trixie")
_HELPER = "/usr/lib/apt/apt-helper"  # `apt-get download` would start each file anew
_KEYRINGS = ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp")
_FRESH_SECONDS = 12 * 3600
_UPDATE_SECONDS = 600.0
_DOWNLOAD_SECONDS = 3600.0
_NUMBER = re.compile(r"^[\d.]+$")
_SAFE = re.compile(r"^[^\s\[\]\"]+$")  # a word of a sources list


class NotFoundError(MissingError):
    """The mirror lists a package and does not have it."""


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Where this machine's apt gets Debian from; both may be the same."""

    main: str
    security: str
    codenames: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PackageVersion:
    name: str
    version: str
    suite: str


@dataclass(frozen=True, slots=True)
class PackageFile:
    uri: str
    name: str
    size: int
    digest: str  # SHA256:hex

    def is_whole(self, directory: Path) -> bool:
        path = directory / self.name
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            return f"SHA256:{hashlib.file_digest(file, 'sha256').hexdigest()}" == self.digest


class Apt:
    """apt-get and apt-cache with all state in one directory of this user's."""

    def __init__(self, directory: Path, architecture: str = "amd64") -> None:
        self._directory = directory
        self._architecture = architecture

    def update(self, progress: Progress, *, force: bool = False) -> None:
        """Fetch the package lists of all suites that the mirrors have, unless they are some hours old only.

        Suites that a mirror lacks are passed over. Raises MissingError where nothing could be fetched and
        nothing is here from before.
        """
        stamp = self._directory / "updated"
        changed = self._lay_out(find_mirrors())
        if not (force or changed) and stamp.exists() and time.time() - stamp.stat().st_mtime < _FRESH_SECONDS:
            return
        stamp.unlink(missing_ok=True)
        progress("fetching package lists", 0.0)
        completed = self._run(["apt-get", "update"], _UPDATE_SECONDS, progress, "fetching package lists")
        if not self._has_lists():
            unsigned = _SIGNATURE.search(completed.errors)
            reason = unsigned[0] if unsigned else _first_error(completed.errors)
            hint = _UNSIGNED if unsigned else _OFFLINE
            raise MissingError(f"no package list could be fetched: {reason}", hint=hint)
        if re.search(r"^(Get|Hit):", completed.output, re.MULTILINE):
            self._run(["apt-cache", "gencaches"], 120)  # update makes none when a suite is missing
            stamp.touch()
        else:
            progress("no mirror can be reached; using older package lists", None)

    def names(self, prefix: str) -> list[str]:
        return self._run(["apt-cache", "pkgnames", prefix], 120).output.split()

    def versions(self, names: list[str]) -> Iterator[PackageVersion]:
        if not names:
            return
        # linux-source-6.1 | 6.1.192-2 | http://... bookworm-security/main amd64 Packages
        for line in self._run(["apt-cache", "madison", *names], 120).output.splitlines():
            fields = [field.strip() for field in line.split("|")]
            if len(fields) == 3 and fields[2].endswith(" Packages"):
                yield PackageVersion(fields[0], fields[1], fields[2].split()[1].partition("/")[0])

    def files(self, packages: list[str]) -> list[PackageFile]:
        """Where the files of packages given as NAME=VERSION are, by the signed package lists.

        Raises NotFoundError for a package that is in no list.
        """
        completed = self._run(["apt-get", "download", "--print-uris", *packages], 120)
        if completed.exit_code:
            raise NotFoundError(_first_error(completed.errors))
        # 'http://.../linux-image-..._amd64.deb' linux-image-..._amd64.deb 26714844 SHA256:ad30...
        rows = [line.split() for line in completed.output.splitlines() if line.startswith("'")]
        return [PackageFile(row[0].strip("'"), row[1], int(row[2]), row[3]) for row in rows]

    def download(self, files: list[PackageFile], into: Path, progress: Progress, phase: str) -> None:
        """Fetch package files, checked against the hashes of the signed lists.

        What is there whole is kept, what is there in part is completed. Raises NotFoundError when the mirror does
        not have one, MissingError when it cannot be reached.
        """
        into.mkdir(parents=True, exist_ok=True)
        wanted = [file for file in files if not file.is_whole(into)]
        if not wanted:
            return
        words = [word for file in wanted for word in (file.uri, file.name, file.digest)]
        completed = self._run([_HELPER, "download-file", *words], _DOWNLOAD_SECONDS, progress, phase, into)
        if completed.exit_code:
            reason = _first_error(completed.errors)
            if " 404 " in completed.errors:
                raise NotFoundError(reason)
            raise MissingError(f"fetching failed: {reason}", hint=_OFFLINE)

    def _lay_out(self, mirrors: Mirrors) -> bool:
        """Write the private configuration; True when it was not the same before."""
        for name in ("lists/partial", "cache/archives/partial", "etc"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        (self._directory / "status").touch()
        path, sources = self._directory / "sources.list", _sources(mirrors, keyring(), self._architecture)
        changed = not path.exists() or path.read_text("utf-8") != sources
        path.write_text(sources, encoding="utf-8")
        return changed

    def _has_lists(self) -> bool:
        """Is there a checked list of a suite that is in the sources now?"""
        argv = ["apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"]
        return any(Path(name).exists() for name in self._run(argv, 60).output.splitlines())

    def _options(self) -> list[str]:
        at = self._directory
        settings = {
            "Dir::Etc::SourceList": at / "sources.list",
            "Dir::Etc::SourceParts": "-",
            "Dir::Etc::Preferences": at / "etc/preferences",
            "Dir::Etc::PreferencesParts": at / "etc",
            "Dir::State::Lists": at / "lists",
            "Dir::State::status": at / "status",
            "Dir::Cache": at / "cache",
            "Dir::Cache::pkgcache": "pkgcache.bin",  # container images switch these off
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "APT::Get::List-Cleanup": "0",  # a suite that fails for once keeps its list
            "APT::Sandbox::User": "root",  # who runs as root: the user _apt cannot write to a private folder
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
            "Acquire::Retries": "2",
            "Debug::NoLocking": "1",  # our own lock is held around all this
        }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def _run(
        self,
        argv: list[str],
        timeout: float,
        progress: Progress | None = None,
        phase: str = "",
        cwd: Path | None = None,
    ) -> process.Completed:
        command = [argv[0], *self._options(), *argv[1:]]
        if progress is None:
            return process.run(command, timeout=timeout, check=False, cwd=cwd)

        def on_line(line: str) -> None:
            # dlstatus:1:12.3:Retrieving file 1 of 3 (5s remaining)
            fields = line.split(":")
            if fields[0] == "dlstatus" and len(fields) > 2 and _NUMBER.match(fields[2]):
                progress(phase, min(float(fields[2]) / 100, 1.0))

        command[1:1] = ["-q", "-o", "APT::Status-Fd=1"]
        return process.run(command, timeout=timeout, check=False, cwd=cwd, on_line=on_line)


_SIGNATURE = re.compile(r"(?<=[EW]: ).*(?:is not signed|NO_PUBKEY|GPG error).*")
_UNSIGNED = "its signature is not one of Debian's archive; update the package debian-archive-keyring"
_OFFLINE = "check the network; a cached kernel and vm:PATH need none"


def keyring() -> Path:
    """Debian's archive keyring. Raises MissingError where it is not installed."""
    for name in _KEYRINGS:
        if Path(name).is_file():
            return Path(name)
    raise MissingError(
        "Debian's archive keyring is not on this machine, so no package could be checked",
        hint="install the package debian-archive-keyring",
    )


def find_mirrors() -> Mirrors:
    """The mirrors of this machine's own apt configuration; WHYERRNO_DEBIAN_MIRROR names another.

    Raises MissingError where apt has no Debian archive, as on Ubuntu.
    """
    wish = os.environ.get(MIRROR_VARIABLE, "")
    if wish:
        return Mirrors(wish, os.environ.get(f"{MIRROR_VARIABLE}_SECURITY", ""), CODENAMES)
    form = "$(REPO_URI)\t$(RELEASE)\t$(ORIGIN)"
    argv = ["apt-get", "indextargets", "--format", form, "Created-By: Packages"]
    rows = [line.split("\t") for line in process.run(argv, timeout=60).output.splitlines()]
    return choose_mirrors([(row[0], row[1], row[2]) for row in rows if len(row) == 3])


def choose_mirrors(targets: list[tuple[str, str, str]]) -> Mirrors:
    """From (repository, release, origin) of each package list that apt knows.

    An origin is empty (or a literal "$(ORIGIN)") before the first `apt-get update`; then the release's name decides.
    """
    main, security, codenames = "", "", list(CODENAMES)
    for uri, release, origin in targets:
        codename = release.partition("-")[0].partition("/")[0]
        if origin != "Debian" and not (origin in ("", "$(ORIGIN)") and codename in CODENAMES):
            continue
        if "-security" in release or release.endswith("/updates"):
            security = security or uri
        elif release in (codename, f"{codename}-updates", f"{codename}-backports"):
            main = main or uri
        if codename.isalpha() and codename not in codenames:
            codenames.append(codename)
    if not main:
        raise MissingError(
            "the apt of this machine has no Debian archive to fetch kernels from",
            hint=f"set {MIRROR_VARIABLE} to the address of a Debian mirror, or use vm:PATH with a kernel of your own",
        )
    return Mirrors(main, security, tuple(codenames))


def _sources(mirrors: Mirrors, key: Path, architecture: str = "amd64") -> str:
    for word in (mirrors.main, mirrors.security or mirrors.main):
        if not _SAFE.match(word):
            raise MissingError(f"{word!r} is not the address of a mirror")
    lines = []
    for codename in mirrors.codenames:
        for suffix, uri in (("", mirrors.main), ("-backports", mirrors.main), ("-security", mirrors.security)):
            if uri:
                lines.append(f"deb [arch={architecture} signed-by={key}] {uri} {codename}{suffix} main\n")
    return "".join(lines)


def _first_error(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith(("E:", "W:"))]
    lines.sort(key=lambda line: (line[0], "Failed to fetch" not in line))  # errors first, then those with an address
    return lines[0][2:].strip() if lines else (text.strip().splitlines() or ["apt-get gave no reason"])[-1]
