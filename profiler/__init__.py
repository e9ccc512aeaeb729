"""whyerrno: names the kernel source line and branch that made a system call fail."""
