"""What probes saw, from the two files that profiler.record.probes leaves: probes-N.json and probes-N.bin.

The latter holds perf's records as the kernel wrote them (include/uapi/linux/perf_event.h), little-endian:

    header       u32 type, u16 misc, u16 size     PERF_RECORD_SAMPLE is 9, 184 bytes
    identifier   u64                              led to a probe by the JSON's `ids`
    pid, tid     u32, u32
    time         u64                              ns
    abi          u64                              2: registers of 64 bits follow, 0: none
    registers    18 × u64                         by arch/x86/include/uapi/asm/perf_regs.h, ascending:
                                                  ax bx cx dx si di bp sp ip flags r8 ... r15
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiler.errors import InputError
from profiler.model import DecodeError, ProbeHits

_SAMPLE, _LOST = 9, 2
_WORDS = 23  # of a sample, its header included
_REGISTERS = 18
_FIRST_REGISTER = 5
_IP, _FLAGS = _FIRST_REGISTER + 8, _FIRST_REGISTER + 9
_ABI_64 = 2
# Where each of model.LOGGED_REGISTERS stands among the record's words.
_COLUMNS = [_FIRST_REGISTER + place for place in (0, 1, 2, 3, 4, 5, 6, 7, *range(10, _REGISTERS))]

Words = NDArray[np.uint64]


def read(facts: bytes | Mapping[str, Any], records: bytes) -> ProbeHits:
    """`facts` is the JSON file or what it holds. A malformed record is a DecodeError; offsets are bytes of `records`.

    Raises InputError where the facts are not those of probes.
    """
    ids, probes, lost = _facts(facts)
    samples, told_lost, errors = _samples(records)
    probe, known = _probe_of(samples, ids)
    errors += [DecodeError(-1, "hit of a probe that is not listed")] * int(np.count_nonzero(~known))
    samples, probe = samples[known], probe[known]
    addresses = np.array([address for address, _, _ in probes], np.uint64)
    returns = np.array([on_return for _, on_return, _ in probes], np.bool_)
    time = samples[:, 3]
    order = _as_executed(samples, addresses[probe], returns[probe])
    samples, probe = samples[order], probe[order]
    attached = [(address, on_return) for address, on_return, refusal in probes if not refusal]
    return ProbeHits(
        address=addresses[probe],
        is_return=returns[probe],
        registers=samples[:, _COLUMNS],
        flags=samples[:, _FLAGS].astype(np.uint32),
        thread=(samples[:, 2] >> np.uint64(32)).astype(np.int32),
        time=time,
        attached=frozenset(address for address, on_return in attached if not on_return),
        attached_returns=frozenset(address for address, on_return in attached if on_return),
        refused={address: refusal for address, _, refusal in probes if refusal},
        lost=max(lost, told_lost),
        decode_errors=tuple(errors),
    )


def _facts(facts: bytes | Mapping[str, Any]) -> tuple[dict[int, int], list[tuple[int, bool, str]], int]:
    """Identifier → place in probes, the probes as (address, on return, refusal), and how many hits were lost."""
    try:
        data = json.loads(facts) if isinstance(facts, bytes) else facts
        probes = [(int(address), bool(on_return), str(refusal)) for address, on_return, refusal in data["probes"]]
        ids = {int(identity): int(place) for identity, place in data["ids"].items()}
        lost = int(data["lost"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"not the facts of probes: {type(error).__name__}: {error}") from error
    if not all(0 <= place < len(probes) for place in ids.values()):
        raise InputError("not the facts of probes: an identifier leads to none of them")
    if not all(0 <= address < 1 << 64 for address, _, _ in probes):
        raise InputError("not the facts of probes: an address has more than 64 bits")
    return ids, probes, lost


def _samples(records: bytes) -> tuple[Words, int, list[DecodeError]]:
    """The samples' words, (n, 23); hits told as lost by the records; what could not be read."""
    words: Words = np.frombuffer(records, "<u8", count=len(records) // 8)
    errors: list[DecodeError] = []
    head = np.uint64(8 * _WORDS << 48 | _SAMPLE)
    rows = words[: len(words) // _WORDS * _WORDS].reshape(-1, _WORDS)
    if len(records) == 8 * rows.size and np.all(rows[:, 0] & ~np.uint64(0xFFFF << 32) == head):
        places, lost = np.arange(len(rows)) * _WORDS, 0
    else:
        places, lost, errors = _walk(records)
        rows = words[places[:, None] + np.arange(_WORDS)]
    bare = rows[:, _FIRST_REGISTER - 1] != _ABI_64
    errors += [DecodeError(8 * int(place), "hit without registers of 64 bits") for place in places[bare]]
    return rows[~bare], lost, errors


def _walk(records: bytes) -> tuple[NDArray[np.int64], int, list[DecodeError]]:
    """Where samples start, in words, one record after the other."""
    places: list[int] = []
    lost, at = 0, 0
    errors: list[DecodeError] = []
    while at + 8 <= len(records):
        kind, size = int.from_bytes(records[at : at + 4], "little"), int.from_bytes(records[at + 6 : at + 8], "little")
        if size < 8 or size % 8 or at + size > len(records):
            errors.append(DecodeError(at, f"record of type {kind} with a size of {size} bytes; the rest is not read"))
            break
        if kind == _SAMPLE and size == 8 * _WORDS:
            places.append(at // 8)
        elif kind == _SAMPLE:
            errors.append(DecodeError(at, f"hit of {size} bytes, not {8 * _WORDS}"))
        elif kind == _LOST and size >= 24:
            lost += int.from_bytes(records[at + 16 : at + 24], "little")
        at += size
    else:
        if at < len(records):
            errors.append(DecodeError(at, f"cut after {len(records) - at} bytes of a record"))
    return np.array(places, np.int64), lost, errors


def _probe_of(samples: Words, ids: Mapping[int, int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Each sample's probe, and whether there is one."""
    if not ids or not len(samples):
        return np.zeros(len(samples), np.int64), np.zeros(len(samples), np.bool_)
    known = np.array(sorted(ids), np.uint64)
    probes = np.array([ids[int(identity)] for identity in known], np.int64)
    at = np.minimum(np.searchsorted(known, samples[:, 1]), len(known) - 1)
    return probes[at], known[at] == samples[:, 1]


def _as_executed(samples: Words, address: Words, is_return: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Places of the samples in the order of execution.

    It is that of the file but where several probes sit on one instruction, the last attached first: the kernel moves a
    probe from a function's endbr to the call behind it, which leaves both with the ip of the latter.
    """
    ip = samples[:, _IP]
    begins = np.ones(len(ip), np.bool_)  # of a run of hits on one instruction
    begins[1:] = (ip[1:] != ip[:-1]) | (samples[1:, 2] != samples[:-1, 2]) | is_return[1:] | is_return[:-1]
    run = np.cumsum(begins) - 1
    place_in_run = np.arange(len(ip)) - np.flatnonzero(begins)[run]
    pairs = np.unique(np.stack([ip, address], axis=1)[~is_return], axis=0)
    known, probes_there = np.unique(pairs[:, 0], return_counts=True)
    if not len(known):
        return np.arange(len(ip))
    at = np.minimum(np.searchsorted(known, ip), len(known) - 1)
    return np.lexsort((address, place_in_run // probes_there[at], run))
