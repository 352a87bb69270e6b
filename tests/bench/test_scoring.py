import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCKER = """
import runpy, sys
BARRED = {"polars", "pydantic", "pydantic_settings", "msgspec", "scipy", "river", "kafka", "yaml", "sklearn", "matplotlib",
          "structlog", "prometheus_client", "starlette", "uvicorn", "typer", "rich", "pandas"}
class Barrier:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BARRED:
            raise ModuleNotFoundError(f"{name} is barred: the model needs torch, numpy and safetensors alone")
sys.meta_path.insert(0, Barrier())
sys.argv = ["scoring.py", *sys.argv[1:]]
runpy.run_path(PATH, run_name="__main__")
"""


def test_it_runs_where_nothing_but_torch_numpy_and_safetensors_is_installed(tmp_path):
    script = BLOCKER.replace("PATH", repr(str(ROOT / "bench" / "scoring.py")))
    file = tmp_path / "scoring.json"

    done = subprocess.run(
        [sys.executable, "-c", script, "--device", "cpu", "--seconds", "0.01", "--json", str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert [(row["d"], row["h"], row["z"], row["k"]) for row in found] == [
        (d, h, z, k) for d, h, z in ((32, 64, 8), (64, 128, 12), (200, 256, 16)) for k in (1, 8, 32)
    ]
    assert all(0 < row["ratio"] < 1.2 for row in found)
    assert all(row["rows_per_s"] > 0 for row in found)
    assert "of ceiling" in done.stdout
