"""Exit codes. 1 and 2 stay a crash and a usage error."""

from __future__ import annotations

OK = 0
FAILED = 6
"""A measurement failed: a case crashed or ran over its time, or the results could not be written."""
INTERRUPTED = 130
"""Ctrl-C, as shells have it."""
