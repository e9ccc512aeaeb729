"""What runs on the target: `python3 -m profiler.record JOB.json OUT_DIR`. Standard library only.

An emulated guest starts Python modules some thirty times slower than a real machine, so these
modules import little: no dataclasses, subprocess, typing or pathlib, which together cost over two seconds there.
"""
