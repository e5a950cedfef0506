"""What train.py does: train an encoder, score it, measure its Jacobians, record the run.

config      the config of train.py, checked
module      the encoder as a Lightning module: loss and optimiser
callbacks   what happens around training and after the test
fit         training and the test loop
trajectory  test scores and JNE of some voxels by epoch
measure     scores and JNE of the test stimuli
run         the run's folder and MLflow run: what it writes, and how it is continued
figures     the figures of a run
"""
