"""Memory: mappings, locked pages, and io_uring's rings."""

from __future__ import annotations

from loadgen.scenario import RESULT, Call, scenario, succeeds
from loadgen.setup import PAGE, Setup
from loadgen.structures import IoUringParams

PROT_READ_WRITE = 3
MAP_ANONYMOUS = 0x20
MAP_PRIVATE = 0x2
MADV_DONTNEED = 4
MFD_CLOEXEC = 0x1
MREMAP_MAYMOVE = 1
FEW_ENTRIES = 8
MADV_GUARD_INSTALL = 102  # since Linux 6.13
MFD_EXEC = 0x10  # since Linux 6.3
IORING_MAX_ENTRIES = 32768
IORING_REGISTER_BUFFERS = 0
MREMAP_FIXED = 2
UNUSED_KEY = 0x77686579


@scenario(
    "io-uring-setup-enomem",
    "ENOMEM",
    "The rings of 32768 entries do not fit the caller's cgroup (memory.max), though the machine has memory to "
    "spare. The man page's ENOMEM hides a dozen allocations and two kinds of limit.",
    needs_root=True,
)
def io_uring_setup_enomem(setup: Setup) -> Call:
    # Measured on 5.10.223, 6.1.192, 6.12.117 and 7.3.4: 256K to 3M all end in ENOMEM. 6.1 and 6.12 fall back to single
    # pages when the large block does not fit, and single pages that do not fit wake the OOM killer.
    setup.memory_cgroup(memory_max="1M")
    setup.spared_by_oom_killer()
    return Call("io_uring_setup", IORING_MAX_ENTRIES, IoUringParams(), undo=Call("close", RESULT))


@succeeds(io_uring_setup_enomem)
def set_up_a_small_ring(setup: Setup) -> Call:
    # In a cgroup too, but one with room for the rings that were closed and are not yet freed.
    setup.memory_cgroup(memory_max="64M")
    return Call("io_uring_setup", FEW_ENTRIES, IoUringParams(), undo=Call("close", RESULT))


@scenario(
    "io-uring-setup-einval",
    "EINVAL",
    "One entry more than the most that a ring may have, without IORING_SETUP_CLAMP. io_uring_setup has more than "
    "ten ways to say EINVAL, spread over three functions.",
)
def io_uring_setup_einval(setup: Setup) -> Call:
    return Call("io_uring_setup", IORING_MAX_ENTRIES + 1, IoUringParams())


@succeeds(io_uring_setup_einval)
def set_up_few_entries(setup: Setup) -> Call:
    return Call("io_uring_setup", FEW_ENTRIES, IoUringParams(), undo=Call("close", RESULT))


@scenario(
    "mmap-einval",
    "EINVAL",
    "An anonymous mapping that is neither shared nor private. The check is the default of a switch deep in do_mmap, "
    "after a dozen others with the same errno.",
)
def mmap_einval(setup: Setup) -> Call:
    return Call("mmap", None, PAGE, PROT_READ_WRITE, MAP_ANONYMOUS, -1, 0)


@succeeds(mmap_einval)
def map_private_memory(setup: Setup) -> Call:
    flags = MAP_ANONYMOUS | MAP_PRIVATE
    return Call("mmap", None, PAGE, PROT_READ_WRITE, flags, -1, 0, undo=Call("munmap", RESULT, PAGE))


@scenario(
    "mlock-enomem",
    "ENOMEM",
    "An ordinary user locks 1 MiB with RLIMIT_MEMLOCK at 4 KiB. ENOMEM here means the limit, not a lack of memory, "
    "nor an unmapped range, which give the same errno.",
)
def mlock_enomem(setup: Setup) -> Call:
    size = 1 << 20
    address = setup.anonymous_memory(size)
    setup.limit("RLIMIT_MEMLOCK", 4096)
    setup.unprivileged()
    return Call("mlock", address, size)


@succeeds(mlock_enomem)
def lock_one_page(setup: Setup) -> Call:
    address = setup.anonymous_memory(PAGE)
    setup.limit("RLIMIT_MEMLOCK", PAGE)
    setup.unprivileged()
    return Call("mlock", address, PAGE, undo=Call("munlock", address, PAGE))


@scenario(
    "madvise-einval",
    "EINVAL",
    "MADV_GUARD_INSTALL, which Linux knows since 6.13: older kernels refuse the advice as unknown, and nothing in "
    "the errno says that the kernel is just too old.",
    fails_before="6.13",
)
def madvise_einval(setup: Setup) -> Call:
    return Call("madvise", setup.anonymous_memory(PAGE), PAGE, MADV_GUARD_INSTALL)


@succeeds(madvise_einval)
def give_an_old_advice(setup: Setup) -> Call:
    return Call("madvise", setup.anonymous_memory(PAGE), PAGE, MADV_DONTNEED)


@scenario(
    "memfd-create-einval",
    "EINVAL",
    "MFD_EXEC, which Linux knows since 6.3: older kernels refuse the flag as unknown.",
    fails_before="6.3",
)
def memfd_create_einval(setup: Setup) -> Call:
    return Call("memfd_create", "whyerrno", MFD_EXEC)


@succeeds(memfd_create_einval)
def make_a_memory_file(setup: Setup) -> Call:
    return Call("memfd_create", "whyerrno", MFD_CLOEXEC, undo=Call("close", RESULT))


@scenario(
    "mremap-einval",
    "EINVAL",
    "MREMAP_FIXED without MREMAP_MAYMOVE. One of five checks in a row whose errno is the start value of one variable.",
)
def mremap_einval(setup: Setup) -> Call:
    address = setup.anonymous_memory(PAGE)
    return Call("mremap", address, PAGE, PAGE, MREMAP_FIXED, address)


@succeeds(mremap_einval)
def move_nothing(setup: Setup) -> Call:
    address = setup.anonymous_memory(PAGE)
    return Call("mremap", address, PAGE, PAGE, MREMAP_MAYMOVE)


@scenario(
    "shmget-enoent",
    "ENOENT",
    "A shared memory segment of a key that nobody made. Semaphores and message queues come to the same line.",
)
def shmget_enoent(setup: Setup) -> Call:
    return Call("shmget", UNUSED_KEY, PAGE, 0)


@scenario(
    "io-uring-register-eopnotsupp",
    "EOPNOTSUPP",
    "A descriptor that is no ring. Many operations on real rings are not supported either.",
)
def io_uring_register_eopnotsupp(setup: Setup) -> Call:
    reading, _ = setup.pipe()
    return Call("io_uring_register", reading, IORING_REGISTER_BUFFERS, None, 0)
