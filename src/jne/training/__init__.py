"""What train.py does: train an encoder, measure it, record the run.

config   the config of train.py, checked
steps    from data to measured voxels
shards   one run computed by several jobs
run      the run's folder and MLflow run: what it writes, and how it is continued
params   what MLflow shows as a run's parameters
figures  the figures of a run
"""
