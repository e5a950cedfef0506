from jne.features.base import OpenClip, OwnFeatures, Precomputed, Timm
