"""Bars, and what is logged while there is one."""

import io
import logging

from rich.console import Console

from jne.utils import progress


def test_what_is_logged_appears_above_the_bar(monkeypatch):
    """On a terminal of 80 columns: whole, on a line of its own."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(progress, "console", console)
    handler, log = progress.ConsoleHandler(), logging.getLogger("jne.test_progress")
    handler.setFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
    log.addHandler(handler)
    try:
        with progress.stage_progress() as bar:
            bar.update(bar.add_task("figures", total=3, unit="", step="Maps"), completed=1)
            bar.refresh()
            log.warning("a warning")
            log.error("a long traceback", extra={"on_terminal": "one line"})
    finally:
        log.removeHandler(handler)
    lines = [line.strip() for line in file.getvalue().replace("\r", "\n").splitlines()]
    ends = [line.split("\x1b[2K")[-1] for line in lines]
    assert "[WARNING] a warning" in ends
    assert "one line" in ends
    assert "a long traceback" not in file.getvalue()
    assert any("figures" in line and "1/3" in line and line.endswith("Maps") for line in ends)


def test_a_long_step_leaves_the_bar_on_one_line(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=file, force_terminal=True, width=80))
    with progress.stage_progress() as bar:
        bar.add_task("figures", total=15, unit="", step="What the encoder has found, by region")
        bar.refresh()
        shown = Console(file=io.StringIO(), width=80)
        shown.print(bar.get_renderable())
    assert shown.file.getvalue().count("\n") == 1
