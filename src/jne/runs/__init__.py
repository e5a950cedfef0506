"""What all scripts do around a run, and sweeps of runs.

session      a run's folder and its MLflow run, opened and closed together
sweep        a sweep as a whole: before its first job, around each job, after its last
launchers    what a sweep must know of the launcher that runs its jobs
overrides    the overrides of each job, KEY=VALUE
feature_choices  features=[a,b] as one choice
choice       the training settings with the lowest validation loss
experiment   the chosen settings as experiment files, and the commands that take them
sweep_table  the tables and the figure of a sweep
"""
