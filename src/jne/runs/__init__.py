"""What all scripts do around a run, and sweeps of runs.

session      a run's folder and its MLflow run, opened and closed together
sweep        a sweep as a whole: before its first job, around each job, after its last
launchers    what a sweep must know of the launcher that runs its jobs
overrides    the overrides of each job, KEY=VALUE
sweep_table  the table and the figure of a sweep
"""
