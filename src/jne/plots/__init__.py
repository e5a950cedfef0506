"""Figures: their style, panels that several figures share, and maps of the brain.

style        colours and fonts; how a figure is made and written
writers      figures of a large report, written by other processes
panels       panels that several figures share
meshes       the surfaces on which voxels have a place
brain        pictures of voxel values on a brain
brain_files  maps of voxel values as files: NIfTI, GIFTI and CIFTI
"""
