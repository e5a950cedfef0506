"""Helpers for every wing: files, tables, blocks of voxels, the machine, SLURM.

files        files and folders that appear whole or not at all, with safe names
tables       CSV tables
user_tables  CSV tables that users wrote
reading      what is raised where a user's file cannot be read
arrays       numeric arrays from users' files
blocks       blocks of voxels, so that no (N, V) array is copied whole
instantiate  objects that a config names by `_target_`
progress     the console and its progress bars
machine      cores, memory and garbage collection of this process
slurm        what SLURM says about this job and others
store_parser the arguments of jne record|close|ui
loading      the first line of a command
"""
