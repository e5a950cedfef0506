from jne.tracking.store import *  # noqa: F403
from jne.tracking.store import TrackedRun, close_orphaned_runs, track, ui_hint
