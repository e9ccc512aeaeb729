"""Processes, their rights, and the calls that only the privileged may make."""

from __future__ import annotations

import ctypes
import os

from loadgen.scenario import RESULT, Call, scenario, succeeds
from loadgen.setup import PAGE, Setup
from loadgen.structures import (
    BpfMapAttributes,
    CapabilityData,
    CapabilityHeader,
    CloneArguments,
    IoVector,
    ResourceLimit,
    SchedulingParameter,
)

NO_PROCESS = 0x3FFFFFFF  # above the greatest pid_max
INIT = 1
CLONE_FS = 0x200
CLONE_FILES = 0x400
CLONE_NEWNS = 0x20000
PTRACE_ATTACH = 16
PR_SET_NO_NEW_PRIVS = 38
UNKNOWN_POLICY = 99
SCHED_OTHER = 0
KEYCTL_REVOKE = 3
NO_KEY = 0x7FFFFFF0
BPF_MAP_CREATE = 0
BPF_MAP_TYPE_ARRAY = 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_CHOWN = 1 << 0
RLIMIT_NOFILE = 7


@scenario(
    "mount-eperm",
    "EPERM",
    "An ordinary user mounts a tmpfs. The arguments are copied and the mount point is looked up first.",
)
def mount_eperm(setup: Setup) -> Call:
    setup.enter_directory()
    setup.subdirectory("point")
    setup.unprivileged()
    return Call("mount", "none", "point", "tmpfs", 0, None)


@scenario(
    "unshare-eperm",
    "EPERM",
    "An ordinary user asks for a mount namespace of its own, without a user namespace to own it.",
)
def unshare_eperm(setup: Setup) -> Call:
    setup.unprivileged()
    return Call("unshare", CLONE_NEWNS)


@succeeds(unshare_eperm)
def unshare_what_is_not_shared(setup: Setup) -> Call:
    setup.unprivileged()
    return Call("unshare", CLONE_FILES)


@scenario(
    "bpf-eperm",
    "EPERM",
    "An ordinary user makes a BPF map while kernel.unprivileged_bpf_disabled is set, as distributions do.",
)
def bpf_eperm(setup: Setup) -> Call:
    attributes = BpfMapAttributes(map_type=BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4, max_entries=1)
    setup.unprivileged()
    return Call("bpf", BPF_MAP_CREATE, attributes, ctypes.sizeof(attributes))


@succeeds(bpf_eperm)
def make_a_map_as_root(setup: Setup) -> Call:
    attributes = BpfMapAttributes(map_type=BPF_MAP_TYPE_ARRAY, key_size=4, value_size=4, max_entries=1)
    return Call("bpf", BPF_MAP_CREATE, attributes, ctypes.sizeof(attributes), undo=Call("close", RESULT))


@scenario(
    "ptrace-eperm",
    "EPERM",
    "An ordinary user attaches to init. User ids, capabilities, dumpability and Yama can each be the reason.",
)
def ptrace_eperm(setup: Setup) -> Call:
    setup.unprivileged()
    return Call("ptrace", PTRACE_ATTACH, INIT, None, None)


@scenario(
    "prctl-einval",
    "EINVAL",
    "PR_SET_NO_NEW_PRIVS with an argument that must be zero. The compiler merges the tails of prctl's many EINVALs.",
)
def prctl_einval(setup: Setup) -> Call:
    return Call("prctl", PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0)


@succeeds(prctl_einval)
def give_up_new_privileges(setup: Setup) -> Call:
    return Call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


@scenario(
    "clone3-einval",
    "EINVAL",
    "A new mount namespace and a shared working directory at once, which no kernel allows: no process is ever made.",
)
def clone3_einval(setup: Setup) -> Call:
    arguments = CloneArguments(flags=CLONE_FS | CLONE_NEWNS)
    return Call("clone3", arguments, ctypes.sizeof(arguments))


@scenario(
    "kill-esrch",
    "ESRCH",
    "A process number that nobody has. The errno is a start value that no process found came to change.",
)
def kill_esrch(setup: Setup) -> Call:
    return Call("kill", NO_PROCESS, 0)


@succeeds(kill_esrch)
def find_oneself(setup: Setup) -> Call:
    return Call("kill", os.getpid(), 0)


@scenario(
    "wait4-echild",
    "ECHILD",
    "A process without children waits for one.",
)
def wait4_echild(setup: Setup) -> Call:
    return Call("wait4", -1, None, 0, None)


@scenario(
    "sched-setscheduler-einval",
    "EINVAL",
    "A scheduling policy that does not exist.",
)
def sched_setscheduler_einval(setup: Setup) -> Call:
    return Call("sched_setscheduler", 0, UNKNOWN_POLICY, SchedulingParameter(priority=0))


@succeeds(sched_setscheduler_einval)
def keep_the_usual_policy(setup: Setup) -> Call:
    return Call("sched_setscheduler", 0, SCHED_OTHER, SchedulingParameter(priority=0))


@scenario(
    "keyctl-enokey",
    "ENOKEY",
    "A key serial number that does not exist. Keys that are revoked, expired or not readable have errnos of their own.",
)
def keyctl_enokey(setup: Setup) -> Call:
    return Call("keyctl", KEYCTL_REVOKE, NO_KEY)


@scenario(
    "prlimit64-einval",
    "EINVAL",
    "A soft limit above the hard one. A limit that does not exist has the same errno, one check earlier.",
)
def prlimit64_einval(setup: Setup) -> Call:
    return Call("prlimit64", 0, RLIMIT_NOFILE, ResourceLimit(soft=64, hard=32), None)


@succeeds(prlimit64_einval)
def keep_the_limit(setup: Setup) -> Call:
    import resource

    soft, hard = resource.getrlimit(RLIMIT_NOFILE)
    return Call("prlimit64", 0, RLIMIT_NOFILE, ResourceLimit(soft=soft, hard=hard), None)


@scenario(
    "capset-eperm",
    "EPERM",
    "A capability that is effective but not permitted. The last of four checks with the same errno, behind a hook of "
    "the security modules.",
)
def capset_eperm(setup: Setup) -> Call:
    return Call("capset", CapabilityHeader(CAPABILITY_VERSION_3, 0), CapabilityData(effective=CAP_CHOWN))


@succeeds(capset_eperm)
def keep_the_capabilities(setup: Setup) -> Call:
    header, data = CapabilityHeader(CAPABILITY_VERSION_3, 0), CapabilityData()
    ctypes.CDLL(None).capget(ctypes.byref(header), ctypes.byref(data))
    return Call("capset", header, data)


@scenario(
    "process-vm-readv-eperm",
    "EPERM",
    "An ordinary user reads init's memory. What refuses says EPERM, is heard as no, becomes EACCES, and is made EPERM "
    "again.",
)
def process_vm_readv_eperm(setup: Setup) -> Call:
    local, remote = IoVector(setup.anonymous_memory(PAGE), 8), IoVector(PAGE, 8)
    setup.unprivileged()
    return Call("process_vm_readv", INIT, local, 1, remote, 1, 0)


@succeeds(process_vm_readv_eperm)
def read_ones_own_memory(setup: Setup) -> Call:
    address = setup.anonymous_memory(PAGE)
    local, remote = IoVector(address, 8), IoVector(address + 8, 8)
    setup.unprivileged()
    return Call("process_vm_readv", os.getpid(), local, 1, remote, 1, 0)


@scenario(
    "rt-sigqueueinfo-eperm",
    "EPERM",
    "A signal to init whose si_code says that kill() sent it, which only the kernel may say to others. Whether the "
    "caller may signal init at all is never asked.",
)
def rt_sigqueueinfo_eperm(setup: Setup) -> Call:
    return Call("rt_sigqueueinfo", INIT, 0, ctypes.create_string_buffer(128))


@scenario(
    "sched-setaffinity-einval",
    "EINVAL",
    "A set without any processor. Refused four calls below, with the task's run queue locked, after two more checks "
    "with the same errno.",
)
def sched_setaffinity_einval(setup: Setup) -> Call:
    return Call("sched_setaffinity", 0, 128, ctypes.create_string_buffer(128))


@succeeds(sched_setaffinity_einval)
def keep_the_processors(setup: Setup) -> Call:
    present = sum(1 << cpu for cpu in os.sched_getaffinity(0))
    return Call("sched_setaffinity", 0, 128, present.to_bytes(128, "little"))
