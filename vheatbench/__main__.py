"""``python -m vheatbench`` is the command line."""

from vheatbench.cli import main

main()
