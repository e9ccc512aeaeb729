"""Makes a system call fail in a tight loop: scenarios, one small declaration each, and the native loop.

Runs inside guests too, so it needs the standard library alone, and little of it: every import is
felt under emulation.
"""
