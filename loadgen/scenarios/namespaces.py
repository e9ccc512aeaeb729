"""Namespaces, and who may enter them."""

from __future__ import annotations

import os

from loadgen.scenario import Call, scenario
from loadgen.setup import Setup


@scenario(
    "setns-eperm",
    "EPERM",
    "An ordinary user enters the UTS namespace that it is in already. Only the kind of namespace can refuse, through "
    "its table of operations, after copies of all of them were made.",
)
def setns_eperm(setup: Setup) -> Call:
    namespace = setup.open("/proc/self/ns/uts", os.O_RDONLY)
    setup.unprivileged()
    return Call("setns", namespace, 0)
