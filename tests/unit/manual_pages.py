"""Manual pages of calls that do not exist, with every way in which real ones say what an errno means."""

from __future__ import annotations

import gzip
from pathlib import Path

# Two calls on a page, entries of one call alone, two names of one errno, a sub-section, a page referred to.
GRIP = r""".\" A page for tests.
.TH grip 2 2026-01-01 "Tests"
.SH NAME
grip, gripat \- take hold of a handle
.SH SYNOPSIS
.nf
.BI "int grip(const char *" path ", int " force ", unsigned int " flags );
.BI "int gripat(int " dirfd ", const char *" path ", unsigned int " flags );
.fi
.SH DESCRIPTION
Where the handle is hot, the call fails with the error
.BR ENOTEMPTY ,
see EXAMPLES.
.SH ERRORS
.TP
.BR EAGAIN " or " EWOULDBLOCK
.\" the first name is the kernel's
The handle is busy and
.B GRIP_NOWAIT
was given in
.IR flags .
.TP
.B EINVAL
.I flags
has unknown bits.
.TP
.B EINVAL
.I force
is above the limit \fIgrip_max\fP\(emor
.RB ( GRIP_SOFT )
negative.
.IP
A second paragraph:
.RS
.IP \[bu] 3
one \(oqcase\(cq;
.IP \[bu]
another.
.RE
.TP
.BR EINVAL " (since Linux 3.9)"
Both
.BR GRIP_HARD
and
.B GRIP_SOFT
were given in
.IR flags .
.TP
.B EBADF
.RB ( gripat ())
.I dirfd
is not a valid file descriptor.
.TP
.B ENFILE
.TQ
.B EMFILE
Too many handles.
.TP
.B SIGBUS
No errno at all.
.PP
The following errors are specific to UNIX domain sockets:
.TP
.B EACCES
Search permission is denied.
.PP
The same errors that occur for
.BR open (2)
can also occur for
.BR gripat ().
The following additional errors can occur for
.BR gripat ():
.TP
.B EACCES
The caller lacks the privileges.
.SH SEE ALSO
.BR open (2)
"""

# What `man` makes of the errors of a page: short tags with text beside them, long ones alone.
PRINTED = """grip(2)                     System Calls Manual                    grip(2)

NAME
       grip, gripat - take hold of a handle

ERRORS
       EBADF  dirfd is not a valid
              file descrip\u2010
              tor.

       EAGAIN or EWOULDBLOCK
              The handle is b\bbu\bus\bsy\by.

       The following errors are specific to UNIX domain sockets:

       EADDRINUSE
              Taken.

              Twice.

Tests                            2026-01-01                         grip(2)
"""

GENERAL = """.TH errno 3 2026-01-01 "Tests"
.SH NAME
errno \\- number of last error
.SH DESCRIPTION
.SS List of error names
.TP
.B EAGAIN
Try it again.
.TP
.B EWOULDBLOCK
May be the same as
.BR EAGAIN .
.TP
.B EXDEV
A link across.
"""

TRANSLATED = GRIP.replace(".SH NAME", ".SH BEZEICHNUNG").replace(".SH ERRORS", ".SH FEHLER")


def install(root: Path, name: str, text: str, section: int = 2, *, folder: str = "") -> Path:
    """A page below `root`, compressed as distributions do."""
    path = root / folder / f"man{section}" / f"{name}.{section}.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))
    return path
