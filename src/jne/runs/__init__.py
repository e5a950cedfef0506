"""Runs as the scripts see them.

session      a run's folder and its MLflow run, opened and closed as one
sweep        a sweep as one thing: before its first job, around each, after its last
launchers    what a sweep must know of the launcher of its jobs
sweep_table  the table and the figure of a sweep
"""
