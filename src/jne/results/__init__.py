"""Results folders: one per run.

folder     the folder while a run writes it: its lock, its status, earlier attempts at the same run
contents   what is in it, how it is written, and `Results`, which reads it
"""

from jne.results.contents import Results

__all__ = ["Results"]
