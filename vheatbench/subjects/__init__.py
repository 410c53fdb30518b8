"""What is measured. Importing this package registers the vHeat models in timm."""

from vheatbench.subjects import micro as micro
from vheatbench.subjects import official as official
from vheatbench.subjects import vheat as vheat
