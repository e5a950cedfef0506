"""Deep features of images: what `features=...` chooses.

base         what all kinds promise; features that the data bring themselves
precomputed  features from a file
vit          what all vision transformers share: pooling, and the cache of extracted features
open_clip    CLIP's vision transformers
timm         timm's vision transformers
images       images in a folder, a zip or an HDF5 file
"""

from jne.features.base import Features, OwnFeatures
from jne.features.open_clip import OpenClip
from jne.features.precomputed import Precomputed
from jne.features.timm import Timm

__all__ = ["Features", "OpenClip", "OwnFeatures", "Precomputed", "Timm"]
