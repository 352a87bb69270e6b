"""What is shipped for Prometheus and Grafana: checked by their own tools."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def succeeds(*command):
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=DEPLOY)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_promtool_accepts_the_configuration_and_its_rules():
    assert "SUCCESS" in succeeds("promtool", "check", "config", "prometheus/prometheus.yml")
    assert "SUCCESS" in succeeds("promtool", "check", "rules", "prometheus/rules/stream-iwae.yml")


@needs_promtool
def test_every_rule_fires_and_stays_quiet_where_it_should():
    assert "SUCCESS" in succeeds("promtool", "test", "rules", "prometheus/tests/stream-iwae_test.yml")


def test_the_dashboard_is_what_its_builder_makes():
    succeeds(sys.executable, "grafana/build.py", "--check")
