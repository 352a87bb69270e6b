"""Tests are no package: what lies beside them is found by its path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
