"""Results folders: one per run.

folder     the folder while a run writes it: its lock, its status, earlier attempts at the same run
contents   what is in it, and how it is written
reader     `Results`, which checks and reads it
listing    the finished runs below an output folder
notebook   a run as a notebook shows it
weights    the encoder in it
space      the volume that voxels are in
spaces     the feature spaces, and what was measured in them
about      whose data they are
labelled   tables and arrays as one xarray.Dataset
"""

from jne.results.reader import Results

__all__ = ["Results"]
