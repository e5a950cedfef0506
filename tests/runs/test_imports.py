"""What `import jne.cli`, with which every script begins, does not load."""

import subprocess
import sys

HEAVY = ("torch", "mlflow", "pandas", "matplotlib", "pytorch_lightning")


def test_scripts_start_without_heavy_imports():
    """In a fresh process: --help and a misspelt override must be answered at once."""
    code = f"import sys, jne.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_help_of_the_store_loads_nothing_heavy():
    code = f"""
import sys
from jne.__main__ import main
sys.argv = ["jne", "ui", "--help"]
try:
    main()
finally:
    print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--port" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
