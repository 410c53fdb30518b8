"""What exit codes mean, for all commands; docs/exit-codes.md is the table of them."""

from __future__ import annotations

import errno

from vheatbench.errors import UserError

OK = 0
"""Done. Of a comparison: nothing got worse by more than its margin."""
CRASH = 1
"""A fault of vheatbench's own, with a traceback."""
USAGE = 2
"""Wrong input, said in one line: an option, a name, a file that is missing or cannot be read."""
REGRESSED = 3
"""Something got slower, larger, stopped fitting or grows faster."""
INCONCLUSIVE = 4
"""The comparison decided nothing: too noisy, too few rounds, no baseline, no common case."""
INCOMPARABLE = 5
"""Measured on different machines or software: no ratio means anything."""
FAILED = 6
"""What was asked well could not be done: a case or a worker failed, nothing at all was measured, a disk is full."""
HUNG_UP, INTERRUPTED, TERMINATED = 129, 130, 143
"""Stopped by SIGHUP, SIGINT or SIGTERM, as shells have it; see :mod:`vheatbench.stop`."""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def code_of(error: Exception) -> int:
    """The code of an error that is one line for the user.

    A full disk is nobody's wrong input, wherever it was met on the way.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_SPACE:
            return FAILED
        cause = cause.__cause__ or cause.__context__
    return USAGE if isinstance(error, UserError) else FAILED
