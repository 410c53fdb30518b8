"""Exceptions that the command line prints as one line."""

from __future__ import annotations

import re

NO_MEMORY = re.compile(
    r"out of memory|outofmemory|can(no|')t allocate memory|bad_alloc|memoryerror|status_alloc_failed"
    r"|could not create a memory|could not create a primitive(?! descriptor)"
    r"|failed to allocate memory for requested buffer"
    r"|memory allocation of \d+ bytes failed"
    r"|can't start new thread|thread creation failed|pthread_create failed|(?<!\] )resource temporarily unavailable",
    re.IGNORECASE,
)
"""What libraries say when an allocation fails, in errors of general types or as last words: torch, C++, Python, the
libraries of CUDA, ONNX Runtime, oneDNN (whose primitive *descriptors* fail for other reasons), Rust, and all that start
threads, whose stacks find no room. An error number before "resource temporarily unavailable" means a file or a lock."""


class UserError(Exception):
    """Bad input from the user: the message says what is wrong, where, and what to do. Exit code 2."""


class StoreError(Exception):
    """A run file could not be written: the message says what is safe and how to go on. Exit code 6."""


class WorkerError(Exception):
    """A process that was to look at this machine or measure died: the message has its last words. Exit code 6."""


class DivergedError(Exception):
    """A loss or weight is not finite while a model is trained: the message says where. Exit code 6."""


def says_out_of_memory(text: str) -> bool:
    """Whether a message or the last words of a process mean that memory ran out."""
    return NO_MEMORY.search(text) is not None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that it was raised from, means that memory ran out, of a device or the host."""
    seen: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in seen:
        if isinstance(link, MemoryError) or says_out_of_memory(f"{type(link).__name__}: {link}"):
            return True
        seen.append(link)
        link = link.__cause__
    return False
