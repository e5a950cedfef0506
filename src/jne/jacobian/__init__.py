"""Jacobians of encoders, and how far each one is from their mean over stimuli.

measurement JNE of any module in one call
deviation   jacobian_deviation: the deviations s, streamed in blocks (Gao et al. 2025, 2.3 and 2.4)
plan        the checked inputs of a computation; the order and the blocks in which it will run
orders      the orders of the same sums: centred, reverse, held, streamed
rms         their root mean square, of all voxels at once
sketch      the same of any module, estimated from random directions
variants    the variants of JNE: norms, and z-scored Jacobians (A.9.2)
gain_shape  deviations split into a change of gain and a change of shape
chain       the chain rule through residual layers
autograd    automatic differentiation of any other module
product     the main matrix product, in three precisions
resumable   arrays on disk from which a killed computation continues
"""

from jne.jacobian.deviation import SETTINGS, check_computable, jacobian_deviation
from jne.jacobian.gain_shape import GAIN_SHAPE
from jne.jacobian.measurement import Measurement, measure
from jne.jacobian.product import PRECISIONS, Precision
from jne.jacobian.rms import rms_deviation
from jne.jacobian.sketch import RmsSketch, rms_sketch
from jne.jacobian.variants import VARIANTS, in_space, variant_column, variant_file

__all__ = [
    "GAIN_SHAPE",
    "PRECISIONS",
    "SETTINGS",
    "VARIANTS",
    "Measurement",
    "Precision",
    "RmsSketch",
    "check_computable",
    "in_space",
    "jacobian_deviation",
    "measure",
    "rms_deviation",
    "rms_sketch",
    "variant_column",
    "variant_file",
]
