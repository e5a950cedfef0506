"""What `import jne.cli`, with which every script begins, does not load."""

import subprocess
import sys

HEAVY = ("torch", "mlflow", "pandas", "matplotlib", "pytorch_lightning")


def test_scripts_start_without_heavy_imports():
    """In a fresh process: --help and a misspelt override must be answered at once."""
    code = f"import sys, jne.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
