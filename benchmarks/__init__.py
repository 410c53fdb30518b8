"""Speed, as ratios against a peer in the same run. Not part of the tests: nothing here passes or fails by time."""

import os

# as in the workers of `vheatbench run`: spinning threads make every number worse on shared cores; read by OpenMP
# when it is loaded, so before torch
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
