"""Figures: their style, panels that several figures share, and maps of the brain.

style        colours and fonts; how a figure is made and written
panels       panels that several figures share
meshes       the surfaces on which voxels have a place
brain        pictures of voxel values on a brain
brain_files  maps of voxel values as files: NIfTI, GIFTI and CIFTI
"""
