"""Deep features of images: what `features=...` chooses.

base         what all kinds promise; features that the data bring themselves
precomputed  features from a file
spaces       several of them side by side
laion        the embeddings that LAION-fMRI is released with
extracted    features that a model extracts from images: what open_clip and timm share
open_clip    CLIP's vision transformers
timm         timm's vision transformers and networks of stages, such as convolutional ones
towers       models, and the features of each of their layers
weights      weights from local files
cache        extracted features on disk
images       images in a folder, a zip or an HDF5 file
pairing      which image each row shows
"""

from jne.features.base import Features, OwnFeatures
from jne.features.laion import LaionEmbedding
from jne.features.open_clip import OpenClip
from jne.features.precomputed import Precomputed
from jne.features.spaces import FeatureSpaces
from jne.features.timm import Timm

__all__ = [
    "FeatureSpaces",
    "Features",
    "LaionEmbedding",
    "OpenClip",
    "OwnFeatures",
    "Precomputed",
    "Timm",
]
