"""All scenarios, by name. Each is one decorated function that sets the failure up and returns the call:

    @scenario(
        "listen-eopnotsupp",                     # the system call, then the errno
        "EOPNOTSUPP",
        "A UDP socket cannot listen.",           # what fails, and why it is worth a look
    )
    def listen_eopnotsupp(setup: Setup) -> Call:
        return Call("listen", setup.udp_socket().fileno(), 1)

Where the same call gives the same errno in another scenario, the name says the way between the two and `syscall=` the
call ("connect-tcp-econnrefused").

Whatever is set up through `Setup` is undone at the end. A system call used for the first time also wants its number
in loadgen/syscalls.py. Choose calls that never succeed: the loop stops at the first success, unless the call says how
to undo it (`Call(..., undo=Call("close", RESULT))`). Choose calls that need no kernel module, or name it: a guest has
only those that are named (`modules=("tun",)`). Where a kernel version fails and another does not, say so
(`fails_before="6.3"`, `fails_since`): tests/vm holds every scenario against that.
"""

from __future__ import annotations

from loadgen.scenario import Scenario
from loadgen.scenarios import arguments, drivers, events, files, ipc, memory, namespaces, processes, refusals, sockets

SCENARIOS: dict[str, Scenario] = {
    made.name: made
    for module in (memory, sockets, files, events, processes, ipc, namespaces, arguments, refusals, drivers)
    for made in vars(module).values()
    if isinstance(made, Scenario)
}
