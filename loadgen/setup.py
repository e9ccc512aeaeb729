"""What scenarios set up: files, sockets, limits, privileges, a cgroup. All of it is undone at the end, in reverse."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from loadgen.cgroup import Cgroup
from loadgen.leftovers import PREFIX, temporary_directory
from profiler.errors import MissingError, RecordError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket as Socket  # noqa: N812

NOBODY = 65534
PAGE = os.sysconf("SC_PAGE_SIZE")


class Setup:
    """Undoes what its methods did when the `with` block ends, the last first."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []
        self._directory: str | None = None
        self.cgroup: Cgroup | None = None
        self.meminfo = self.open("/proc/meminfo", os.O_RDONLY)

    def __enter__(self) -> Setup:
        return self

    def __exit__(self, *_: object) -> None:
        first_error: Exception | None = None
        while self._undo:
            try:
                self._undo.pop()()
            except OSError as error:
                first_error = first_error or error
        if first_error is not None:
            raise RecordError(f"the load could not undo its set-up: {first_error}") from first_error

    def at_end(self, undo: Callable[[], object]) -> None:
        self._undo.append(undo)

    # ---- files ----

    def directory(self) -> str:
        """An empty directory of this load, which anyone may search; the same one each time."""
        if self._directory is None:
            path = f"{temporary_directory()}/{PREFIX}{os.getpid()}"  # mkdir refuses an existing one
            os.mkdir(path)  # pathlib is slow to import
            os.chmod(path, 0o755)  # noqa: S103  whatever the umask, an ordinary user must get in
            self._directory = path
            self.at_end(lambda: os.rmdir(path))
        return self._directory

    def enter_directory(self) -> None:
        """Makes `directory()` the working directory, so that its own mode is all that a relative path meets."""
        path, before = self.directory(), self.open(".", os.O_RDONLY | os.O_DIRECTORY)
        os.chdir(path)
        self.at_end(lambda: os.fchdir(before))

    def file(self, name: str, content: bytes = b"", mode: int = 0o644) -> str:
        path = f"{self.directory()}/{name}"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        self.unlink_at_end(path)
        os.write(descriptor, content)
        os.close(descriptor)
        return path

    def unlink_at_end(self, path: str) -> None:
        self.at_end(lambda: os.unlink(path))

    def subdirectory(self, name: str) -> str:
        path = f"{self.directory()}/{name}"
        os.mkdir(path)
        self.at_end(lambda: os.rmdir(path))
        return path

    def open(self, path: str, flags: int) -> int:
        return self.owned(os.open(path, flags | os.O_CLOEXEC))

    def owned(self, descriptor: int) -> int:
        """A descriptor that is closed at the end. Raises RecordError for a negative one: the C library's failure."""
        if descriptor < 0:
            raise RecordError(
                "the load could not set up: no descriptor", hint="is the kernel built without the feature?"
            )
        self.at_end(lambda: os.close(descriptor))
        return descriptor

    def pipe(self) -> tuple[int, int]:
        reading, writing = os.pipe()
        return self.owned(reading), self.owned(writing)

    # ---- sockets ----

    def socket(self, family: int, kind: int) -> Socket:
        import socket as sockets  # slow to import, and few scenarios need it

        made = sockets.socket(family, kind)
        self.at_end(made.close)
        return made

    def tcp_socket(self) -> Socket:
        return self.socket(2, 1)

    def udp_socket(self) -> Socket:
        return self.socket(2, 2)

    # ---- who the load is, and what it may use ----

    def unprivileged(self) -> None:
        """Drops root's effective rights, which decide every permission check; nothing to do for an ordinary user.

        The saved user id stays, so that the set-up can be undone as root.
        """
        if os.geteuid() != 0:
            return
        groups = os.getgroups()
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, 0)
        os.setresuid(NOBODY, NOBODY, 0)

        def restore() -> None:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            os.setgroups(groups)

        self.at_end(restore)

    def limit(self, name: str, soft: int) -> None:
        """Lowers a soft resource limit, such as "RLIMIT_MEMLOCK"."""
        import resource

        which: int = getattr(resource, name)
        before = resource.getrlimit(which)
        resource.setrlimit(which, (soft, before[1]))
        self.at_end(lambda: resource.setrlimit(which, before))

    def memory_cgroup(self, **limits: str) -> None:
        """Lets the loop, and nothing else, run in a cgroup with these limits (`memory_max="1M"`).

        Raises MissingError where this needs root, or cgroup v2 with its memory controller.
        """
        self._enter_cgroup("memory", limits)

    def pids_cgroup(self, **limits: str) -> None:
        """The same with a limit on the number of tasks (`pids_max="1"`)."""
        self._enter_cgroup("pids", limits)

    def _enter_cgroup(self, controller: str, limits: dict[str, str]) -> None:
        if os.geteuid() != 0:
            raise MissingError("this scenario needs root, to limit itself by a cgroup", hint="run it as root")
        self.cgroup = Cgroup(controller, limits, self.at_end)

    def spared_by_oom_killer(self) -> None:
        """A charge that meets the cgroup's limit then fails, where otherwise this process would be killed for it.

        The kernel still reports each such failure at length: to its log, but not to the console, where printing to
        a serial line would take longer than all the rest.
        """
        self.setting("/proc/self/oom_score_adj", "-1000")  # OOM_SCORE_ADJ_MIN
        self.setting("/proc/sys/kernel/printk", "1")

    def module(self, name: str) -> None:
        """Has a kernel module loaded, and unloaded at the end where it was not there. Raises MissingError if it cannot
        be."""
        if os.path.isdir(f"/sys/module/{name}"):
            return
        done = os.spawnvp(os.P_WAIT, "modprobe", ["modprobe", name])  # noqa: S606  subprocess is slow to import
        if done or not os.path.isdir(f"/sys/module/{name}"):
            raise MissingError(
                f"the kernel module {name} is not loaded, and modprobe cannot load it",
                hint="run as root, on a kernel that has the module",
            )
        self.at_end(lambda: os.spawnvp(os.P_WAIT, "modprobe", ["modprobe", "-r", name]))  # noqa: S606

    def setting(self, path: str, value: str) -> None:
        """Writes a file of /proc, and its former content at the end."""
        descriptor = self.open(path, os.O_RDWR)
        before = os.pread(descriptor, 100, 0)
        os.pwrite(descriptor, value.encode(), 0)
        self.at_end(lambda: os.pwrite(descriptor, before, 0))

    def anonymous_memory(self, size: int) -> int:
        """The address of private anonymous memory, unmapped at the end."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        address: int = libc.mmap(None, size, 3, 0x22, -1, 0)  # PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS
        if address == ctypes.c_void_p(-1).value:
            raise RecordError(f"the load could not map {size} bytes: {os.strerror(ctypes.get_errno())}")
        self.at_end(lambda: libc.munmap(address, size))
        return address
