"""From a trained encoder and stimuli to numbers per voxel.

config        the keys of it
scores        how well the test stimuli are predicted
nonlinearity  Jacobians, JNE and JNE-SS
trajectory    test scores and JNE of some voxels by epoch
callback      `MeasureJNE`, by which Lightning measures
"""
