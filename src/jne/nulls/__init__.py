"""The null models of a run: surrogate voxels to train on beside the real ones.

config   the keys of it
twins    linear twins
"""
