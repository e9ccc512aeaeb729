"""/proc/kallsyms of the running kernel: the check that it shows addresses, the copy, the addresses of its text."""

from profiler.errors import MissingError, RecordError

PATH = "/proc/kallsyms"
TEXT_SYMBOLS = ("_text", "_stext", "_etext")


def check_shown(path: str = PATH) -> None:
    """Raises MissingError where every address reads as zero, before time is spent on recording."""
    try:
        with open(path, "rb") as file:
            head = file.read(8192)
    except OSError as error:
        raise MissingError(
            f"{path} cannot be read: {error.strerror}", hint="the kernel needs CONFIG_KALLSYMS, and /proc be mounted"
        ) from error
    addresses = [line.split(b" ", 1)[0] for line in head.splitlines()[:-1]]
    if not any(address.strip(b"0") for address in addresses):
        raise MissingError(
            f"{path} shows no addresses (all zero)",
            hint="run as root, or set kernel.kptr_restrict to 0 and kernel.perf_event_paranoid to 0 or less",
        )


def read(path: str = PATH) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def copy(destination: str, path: str = PATH) -> None:
    with open(destination, "wb") as file:
        file.write(read(path))


def text_addresses(kallsyms: bytes) -> dict[str, int]:
    """Addresses of _text, _stext and _etext, as loaded.

        ffffffff81000000 T _stext

    Raises RecordError where one is not there.
    """
    found = {}
    for symbol in TEXT_SYMBOLS:
        address = address_of(kallsyms, symbol)
        if address is None:
            raise RecordError(f"/proc/kallsyms has no symbol {symbol}")
        found[symbol] = address
    return found


def address_of(kallsyms: bytes, symbol: str) -> int | None:
    """None where the kernel has no such symbol; of several the first of code."""
    for kind in (b"T", b"t", b"D", b"R"):
        place = kallsyms.find(b" " + kind + b" " + symbol.encode() + b"\n")
        if place >= 0:
            return int(kallsyms[kallsyms.rfind(b"\n", 0, place) + 1 : place], 16)
    return None
