"""Figures: their style, panels that several figures share, and maps of the brain.

style   colours and fonts; how a figure is made and written
panels  panels that several figures share
brain   maps of voxel values: GIFTI and NIfTI files, and pictures of them
"""
