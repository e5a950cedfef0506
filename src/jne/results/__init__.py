"""Results folders: one per run.

folder     the folder while a run writes it: its lock, its status, earlier attempts at the same run
contents   what is in it, and how it is written
reader     `Results`, which checks and reads it
weights    the encoder in it
about      whose data they are
labelled   tables and arrays as one xarray.Dataset
"""

from jne.results.reader import Results

__all__ = ["Results"]
