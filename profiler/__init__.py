"""whyerrno: names the kernel source line and branch that made a system call fail."""

__version__ = "0.1.0"

__version__ = "0.1.0"
