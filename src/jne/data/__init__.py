"""Data sources, the one prepared format that all of them write, and the data module that reads it.

A new data set is a subclass of `source.Source` in a file of its own, and its conf/data/NAME.yaml.

source           Source: what a data set says of itself, and its `write`
prepared         the prepared format: a source writes it, Prepared is it
checks           what a source checks before it writes
centring         columns that float32 cannot hold as measured
notes            what is known of a prepared folder beyond its name
leaks            stimuli to test on that an encoder has seen, repeats and order
regions          ROI sets, the paper's ROIs, and the choice of voxels by them
splits           how stimuli are split into train, val and test
voxel_table      what a voxel table may hold
datamodule       prepared data as standardised batches for Lightning
synthetic        a cohort made from a seed, whose nonlinearity is known
synthetic_atlas  its voxels' places on fsaverage5
arrays           users' own arrays and images
averaging        what readers of single trials share: repeats averaged, the noise between them
nifti            images as nibabel reads them
nsd              the Natural Scenes Dataset
algonauts        the Algonauts 2023 challenge
mosaic           MOSAIC's eight data sets
laion            LAION-fMRI
laion_ood        its images out of distribution, an external test set
nsd_synthetic    NSD-synthetic, an external test set
mosaic_artificial  MOSAIC's artificial images, another
external_arrays  users' own arrays as an external test set
"""
