"""What ``import vheatbench as vb`` offers: each name of it is a function or a class of a file here.

The functions call what the commands call (``run``, ``studies``, ``analysis``, ``verdict``, ``report``): nothing is
measured in a second way. docs/python.md says what is stable.
"""
