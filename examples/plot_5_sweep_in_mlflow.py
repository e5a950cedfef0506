"""
A sweep, compared in MLflow
===========================

Where must an activation stand to make an encoder nonlinear? ``jne train -m`` runs all combinations
of the values that it is given, and every run is in MLflow: a table of parameters and metrics that
pandas can read.
"""

# %%
# Four runs
# ---------
#
# In a shell: ``jne train -m activation=relu,gelu placement=loc1,both ...``. With
# ``hydra/launcher=cores`` they would run at the same time, with ``hydra/launcher=slurm`` on a
# cluster (:doc:`/sweeps`).

import subprocess
import sys
import tempfile
from pathlib import Path

output = Path(tempfile.mkdtemp())
command = [
    *(sys.executable, "-m", "jne", "train", "-m", f"output={output}"),
    *("activation=relu,gelu", "placement=loc1,both"),
    *("data.n_features=128", "data.n_train=1000", "data.voxels_per_roi=15"),
    *("encoder.hidden_width=128", "baseline=[]"),
]
done = subprocess.run(command, capture_output=True, text=True, check=True)
table = done.stdout[done.stdout.rindex("┏") :]  # at the end, the table of the sweep
print(table[: table.index("sweep")])

# %%
# In the browser
# --------------
#
# ``jne ui`` opens the MLflow UI on the store. The sweep printed the address of a view that shows
# only its runs, with R² and JNE as columns and what was varied beside them. On the page of a run,
# the figures are at the top.
#
# In pandas
# ---------
#
# MLflow's own functions work as with any store. Parameters have the names of the config's keys;
# metrics are means by ROI.

import mlflow

mlflow.set_tracking_uri(f"sqlite:///{output / 'mlflow.db'}")
runs = mlflow.search_runs(
    experiment_names=["jne"],
    filter_string="tags.kind = 'train'",  # the sweep has a run of its own
    order_by=["metrics.`jne/mean`"],
)
columns = ["params.activation", "params.placement", "metrics.r2/mean", "metrics.jne/mean"]
runs[columns].round(3)

# %%
# ``metrics.jne/V1``, ``metrics.jne/V2``, ... have JNE by ROI. Which voxels an encoder finds
# nonlinear depends little on its activation and its placement; how nonlinear, much more.

import matplotlib.pyplot as plt

from jne.plots.style import STYLE
from jne.roi import ROIS

plt.rcParams.update(STYLE)
styles = {"loc1": "--", "both": "-"}
colours = {"relu": "#0072B2", "gelu": "#D55E00"}
figure, panels = plt.subplots(1, 2, figsize=(7, 2.7), sharex=True, layout="constrained")
for panel, metric in zip(panels, ("jne", "r2"), strict=True):
    for _, run in runs.iterrows():
        activation, placement = run["params.activation"], run["params.placement"]
        panel.plot(
            [run[f"metrics.{metric}/{roi}"] for roi in ROIS],
            styles[placement],
            color=colours[activation],
            label=f"{activation}, {placement}",
        )
    panel.set_xticks(range(len(ROIS)), ROIS, rotation=45)
panels[0].set(ylabel="JNE, mean of each ROI", ylim=(0, None))
panels[1].set(ylabel="R²", ylim=(0, 0.8))
panels[0].legend(fontsize=7)

# %%
# Back to the folders
# -------------------
#
# Arrays are not in MLflow, but in the results folder of each run, whose path is a tag.
# ``sweep.csv`` in the sweep's own folder has the same table as a file.

from jne import Results

best = Results(runs.loc[runs["metrics.r2/mean"].idxmax(), "tags.results"])
print(best.config["activation"], best.config["placement"], best.array("jne_ss").shape)
