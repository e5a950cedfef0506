"""evaluate.py: from finished runs to one report. It trains nothing and leaves the runs unchanged.

config            the config of evaluate.py
chosen            the runs that are read: those that are named, or the newest
subjects          which runs belong to one subject
same_data         whether two runs are on the same data
pair              `compare`, two runs region by region
voxels            one voxel table per subject, and what the sections share
external_test       how a stored encoder does on other stimuli
missing_variants  JNE of the variants that a run did not store
claims            when a difference of JNE is a finding about the brain
sections          what the report shows: one module per section
report            the HTML page and its findings
run               what is written to the report's folder and to MLflow
"""
