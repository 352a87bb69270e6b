import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; `plain` is theirs alone
