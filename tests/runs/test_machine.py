"""How a process ends whose imports were not collected."""

import subprocess
import sys

import pytest


def test_a_process_ends_with_its_own_words_only():
    """triton lists what was not freed; exit handlers of the imports are still heard."""
    pytest.importorskip("triton")
    code = """
import atexit, sys
from jne.utils.machine import imports_without_gc
with imports_without_gc():
    import triton
    atexit.register(print, "a handler", file=sys.stderr)
sys.exit("error: a message")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: a message\na handler\n"
