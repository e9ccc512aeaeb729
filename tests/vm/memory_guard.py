"""Runs in a guest: a loop that eats memory, because what its calls map is never unmapped.

python memory_guard.py LIBRARY
"""

import json
import sys

from loadgen import loop
from loadgen.scenario import RESULT, Call
from loadgen.setup import Setup

MAP_PRIVATE_ANONYMOUS_POPULATE = 0x8022
MEGABYTE = 1 << 20

with Setup() as setup:
    eat = Call("mmap", None, MEGABYTE, 3, MAP_PRIVATE_ANONYMOUS_POPULATE, -1, 0, undo=Call("lseek", -1, 0, RESULT))
    outcome = loop.run(loop.load_library(sys.argv[1]), loop.plan(eat, setup, 60))
    stopped_by = loop.STOPPED_BY[outcome.stopped_by]
    print(json.dumps({"stopped_by": stopped_by, "calls": outcome.calls, "pauses": outcome.pauses}), flush=True)
