"""What readers of single trials share: repeats averaged, and what they say of the noise.

A reader gives trials by session (a stimulus returns in several of them) or by stimulus, and gets
responses.npy and a `VoxelNoise`. Both ways are streamed and survive a kill.

by_session   all sessions averaged a block of voxels at a time: nsd, nsd_synthetic, laion
by_stimulus  one stimulus after the other: mosaic
means        trials standardised within runs or sessions and averaged, in memory
sums         sums over the trials of each voxel, and the noise that follows from them
as_nsd       the ncsnr as NSD computes its maps
"""
