"""Exit codes. 1 and 2 stay a crash and a usage error."""

from __future__ import annotations

OK = 0
REGRESSED = 3
"""Something got slower, larger, stopped fitting or grows faster."""
INCONCLUSIVE = 4
"""The comparison decided nothing: too noisy, too few rounds, no baseline, no common case."""
INCOMPARABLE = 5
"""Measured on different machines or software: no ratio means anything."""
FAILED = 6
"""A measurement failed: a case crashed or ran over its time, or the results could not be written."""
INTERRUPTED = 130
"""Ctrl-C, as shells have it."""
