"""The generated parts of the documentation are those that the code would generate now."""

import subprocess
import sys

from tests.docs.markdown import ROOT


def test_generated_parts_are_up_to_date():
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
