"""Numbers of the perf.data format: record types, sample fields, context markers, features.

Sources: `include/uapi/linux/perf_event.h` and `tools/perf/Documentation/perf.data-file-format.txt`
of Linux 7.3. All of them are ABI, so they hold for older kernels too.
"""

from __future__ import annotations

MAGIC = b"PERFILE2"
MAGIC_SWAPPED = b"2ELIFREP"
MAGIC_VERSION_1 = b"PERFFILE"
FILE_HEADER_SIZE = 104
PIPE_HEADER_SIZE = 16
RECORD_HEADER_SIZE = 8  # u32 type, u16 misc, u16 size of the whole record

# perf_event_attr grows with each version; 64 bytes is the first, 144 that of Linux 7.3.
SMALLEST_ATTR = 64
LARGEST_ATTR = 4096

# Records the kernel writes (below 64) and those perf adds.
MMAP = 1
LOST = 2
COMM = 3
THROTTLE = 5
FORK = 7
SAMPLE = 9
MMAP2 = 10
LOST_SAMPLES = 13
HEADER_ATTR = 64
HEADER_TRACING_DATA = 66
HEADER_BUILD_ID = 67
AUXTRACE = 71
EVENT_UPDATE = 78
HEADER_FEATURE = 80
COMPRESSED = 81
COMPRESSED2 = 83

RECORD_NAMES = {
    MMAP: "MMAP",
    LOST: "LOST",
    COMM: "COMM",
    4: "EXIT",
    THROTTLE: "THROTTLE",
    6: "UNTHROTTLE",
    FORK: "FORK",
    8: "READ",
    SAMPLE: "SAMPLE",
    MMAP2: "MMAP2",
    11: "AUX",
    12: "ITRACE_START",
    LOST_SAMPLES: "LOST_SAMPLES",
    14: "SWITCH",
    15: "SWITCH_CPU_WIDE",
    16: "NAMESPACES",
    17: "KSYMBOL",
    18: "BPF_EVENT",
    19: "CGROUP",
    20: "TEXT_POKE",
    21: "AUX_OUTPUT_HW_ID",
    22: "CALLCHAIN_DEFERRED",
    HEADER_ATTR: "HEADER_ATTR",
    65: "HEADER_EVENT_TYPE",
    HEADER_TRACING_DATA: "HEADER_TRACING_DATA",
    HEADER_BUILD_ID: "HEADER_BUILD_ID",
    68: "FINISHED_ROUND",
    69: "ID_INDEX",
    70: "AUXTRACE_INFO",
    AUXTRACE: "AUXTRACE",
    72: "AUXTRACE_ERROR",
    73: "THREAD_MAP",
    74: "CPU_MAP",
    75: "STAT_CONFIG",
    76: "STAT",
    77: "STAT_ROUND",
    EVENT_UPDATE: "EVENT_UPDATE",
    79: "TIME_CONV",
    HEADER_FEATURE: "HEADER_FEATURE",
    COMPRESSED: "COMPRESSED",
    82: "FINISHED_INIT",
    COMPRESSED2: "COMPRESSED2",
    84: "BPF_METADATA",
    85: "SCHEDSTAT_CPU",
    86: "SCHEDSTAT_DOMAIN",
}

# misc, low three bits: where the CPU was
CPUMODE_MASK = 7
CPUMODE_KERNEL = 1
MISC_MMAP_BUILD_ID = 1 << 14  # MMAP2: a build id in place of device and inode
MISC_BUILD_ID_SIZE = 1 << 15  # HEADER_BUILD_ID: byte 20 of the field is the id's length
MISC_LOST_BY_FILTER = 1 << 15  # LOST_SAMPLES: dropped by a BPF filter, as the user asked

# attr.sample_type
SAMPLE_IP = 1 << 0
SAMPLE_TID = 1 << 1
SAMPLE_TIME = 1 << 2
SAMPLE_ADDR = 1 << 3
SAMPLE_READ = 1 << 4
SAMPLE_CALLCHAIN = 1 << 5
SAMPLE_ID = 1 << 6
SAMPLE_CPU = 1 << 7
SAMPLE_PERIOD = 1 << 8
SAMPLE_STREAM_ID = 1 << 9
SAMPLE_IDENTIFIER = 1 << 16

# attr.read_format
READ_TIME_ENABLED = 1 << 0
READ_TIME_RUNNING = 1 << 1
READ_ID = 1 << 2
READ_GROUP = 1 << 3
READ_LOST = 1 << 4

# The bit field of attr at byte 40
ATTR_FREQ_BIT = 10
ATTR_PRECISE_SHIFT = 15
ATTR_SAMPLE_ID_ALL_BIT = 18

# Markers inside a callchain: what follows belongs to this context. All lie in the last page.
CONTEXT_FIRST = 2**64 - 4095
CONTEXT_KERNEL = 2**64 - 128

# Feature bits of the file header
FEATURE_BUILD_ID = 2
FEATURE_OSRELEASE = 4
FEATURE_VERSION = 5
FEATURE_ARCH = 6
FEATURE_NRCPUS = 7
FEATURE_CMDLINE = 11
FEATURE_EVENT_DESC = 12
FEATURE_BITS = 256

EVENT_UPDATE_NAME = 2  # EVENT_UPDATE: 0 unit, 1 scale, 2 name, 3 cpus

# attr.type and attr.config → the name perf gives the event
HARDWARE_EVENTS = (
    "cycles",
    "instructions",
    "cache-references",
    "cache-misses",
    "branches",
    "branch-misses",
    "bus-cycles",
    "stalled-cycles-frontend",
    "stalled-cycles-backend",
    "ref-cycles",
)
SOFTWARE_EVENTS = (
    "cpu-clock",
    "task-clock",
    "page-faults",
    "context-switches",
    "cpu-migrations",
    "minor-faults",
    "major-faults",
    "alignment-faults",
    "emulation-faults",
    "dummy",
    "bpf-output",
    "cgroup-switches",
)


def record_name(record_type: int) -> str:
    """For messages: `SAMPLE`, or the number where the type is not known."""
    return RECORD_NAMES.get(record_type, f"type {record_type}")
