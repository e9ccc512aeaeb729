"""All scenarios, by name. Each is one decorated function that sets the failure up and returns the call."""

from __future__ import annotations

from loadgen.scenario import Scenario
from loadgen.scenarios import events, files, memory, processes, sockets

SCENARIOS: dict[str, Scenario] = {
    made.name: made
    for module in (memory, sockets, files, events, processes)
    for made in vars(module).values()
    if isinstance(made, Scenario)
}
