"""The process of the command line: ``vheatbench``, and ``python -m vheatbench``, as torchrun needs it."""

from __future__ import annotations

from vheatbench.stop import leave_quietly, leave_undisturbed


def main() -> None:
    """Heed signals before anything else is imported, then see :func:`vheatbench.cli.main`."""
    leave_quietly()
    from vheatbench.cli import main

    try:
        main()
    finally:
        leave_undisturbed()


if __name__ == "__main__":
    main()
