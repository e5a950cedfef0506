"""
LAION-fMRI: the tree of files and the commands
==============================================

``data=laion`` reads LAION-fMRI as it is downloaded. This page writes a miniature tree of random
numbers, one person and four sessions of a few voxels, trains on it and tests out of distribution.
**No value here is of the data set.** With the real files, the two commands are the same.
"""

# %%
# A miniature
# -----------
#
# 700 images, of which 100 are out of distribution, four repeats each, with 8 features in place of
# an embedding. Voxels of V1 are linear in the features, voxels of the FFA are not.

import json
import tempfile
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np

rng = np.random.default_rng(0)
root, person = Path(tempfile.mkdtemp()), "sub-01"
own = [f"unique_LAION_new_cluster_{n}_i0_p01.jpg" for n in range(600)]
odd = [f"shared_4rep_OOD_gabor_{n}.png" for n in range(100)]
names = [*own, *odd]
features = rng.standard_normal((len(names), 8)).astype(np.float16)

shape = (6, 6, 6)
v1, ffa = np.zeros((2, *shape), dtype=bool)
v1[1, 1:5, 1:5], ffa[4, 1:5, 1:5] = True, True
weights = rng.standard_normal((8, *shape)) / np.sqrt(8)
drive = np.tensordot(features.astype(float), weights, axes=1)  # (N, X, Y, Z)
signal = np.where(ffa, 1.7 * np.abs(drive) - 1.3, drive)

# %%
# The files, in the folders of the public bucket: betas with the table of their trials for each
# session, maps of the person, masks of regions, embeddings. The split files are in the authors'
# package.

derivatives = root / "derivatives"
glm = derivatives / "glmsingle-tedana" / person
anatomy = derivatives / "anatomical" / person / "ses-PrismaAnat" / "anat"
space = "task-images_space-T1w"
affine = np.diag([1.7778, 1.7778, 1.7778, 1])


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(values, dtype=np.float32), affine), path)


for session in ("ses-01", "ses-02", "ses-03", "ses-04"):
    order = rng.permutation(len(names))
    betas = signal[order] + rng.standard_normal((len(order), *shape))
    betas = np.where(v1 | ffa, betas, 0)
    stem = f"{glm}/{session}/func/{person}_{session}"
    stat = "stat-effect_desc-SingletrialBetas_statmap.nii.gz"
    save(Path(f"{stem}_{space}_{stat}"), np.moveaxis(betas, 0, -1))
    lines = ["session\trun\tbeta_index\tlabel"]
    lines += [f"{session}\t{1 + i // 100}\t{i}\t{names[n]}" for i, n in enumerate(order)]
    trials = Path(f"{stem}_task-images_desc-SingletrialBetas_trials.tsv")
    trials.write_text("\n".join(lines) + "\n")

save(anatomy / f"{person}_ses-PrismaAnat_space-T1w_res-1pt8_desc-brain_mask.nii.gz", v1 | ffa)
save(glm / f"{person}_{space}_desc-Noiseceiling12rep_statmap.nii.gz", 92 * (v1 | ffa))
for category, label, mask in (("retinotopy", "V1v", v1), ("face", "FFA1", ffa)):
    roi = f"{person}_space-T1w_res-1pt8_label-{label}_mask.nii.gz"
    save(derivatives / "rois" / person / category / roi, mask)
(root / "stimuli").mkdir()
with h5py.File(root / "stimuli" / "task-images_desc-CLIP_embeddings.h5", "w") as file:
    file["embedding"], file["valid"] = features, np.ones(len(names), dtype=bool)
    file.create_dataset("image_ids", data=names, dtype=h5py.string_dtype())
split = root / "splits" / person / "ood.json"
split.parent.mkdir(parents=True)
split.write_text(json.dumps({"variants": [{"train_ids": own, "test_ids": odd}]}))
print("\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*.*"))))

# %%
# Training
# --------
#
# The first lines say what was read: the split, the voxels of each region, sessions of the release
# that are missing. Betas are z-scored within sessions and averaged over repeats; the noise ceiling
# is converted from the 12 repeats of the map to the 4 of the test images.

import subprocess
import sys

output = root / "outputs"
command = [
    *(sys.executable, "-m", "jne", "train", f"output={output}", "data=laion", "subject=s1"),
    *(f"data.root={root}", "features=laion_clip", "data.split=ood", "data.voxels=[V1,FFA-1]"),
    f"data.splits={root / 'splits'}",  # not needed where the authors' package is installed
    *("encoder.hidden_width=128", "trainer.max_epochs=40", "optimizer.weight_decay=0"),
]
done = subprocess.run(command, capture_output=True, text=True, check=True)
print(done.stdout[: done.stdout.index("features ")])
print(done.stdout[done.stdout.index("┏") : done.stdout.index("results")])

# %%
# The results have the kind of each image, and voxels with a place on the person's T1w image.

from jne import Results

(folder,) = (output / "runs").iterdir()
run = Results(folder)
print(run.about["licence"])
run.voxels.groupby("roi")[["noise_ceiling", "r2_ridge", "r2", "jne"]].mean().round(2)
