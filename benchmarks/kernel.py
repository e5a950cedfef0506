"""What encoder=kernel costs beside the default encoder.

python benchmarks/kernel.py N [N ...]    # training stimuli; 250 more validate

Cohorts of data=cells with shared noise, 384 features, 360 voxels. CPU seconds of the fit and of the
Jacobians of 100 stimuli, and peak memory of the fit of the kernel, with one thread.
"""

import sys
import time

import decay
import torch

from jne import jacobian_deviation
from jne.fitting.fit import fit
from jne.utils.machine import peak_memory_gb
from jne.utils.progress import without_progress

KERNEL = {"_target_": "jne.encoders.KernelRegression"}


def main(sizes: list[int]) -> None:
    torch.set_num_threads(1)
    default = decay.settings("auto", 256)
    kinds = {"kernel": default.model_copy(update={"encoder": KERNEL}), "nonlinear": default}
    for n in sizes:
        data = decay.cohort("cells", "shared", 5000, n)
        features = data.split("test")[0][:100]
        for name, settings in kinds.items():
            start = time.process_time()
            with without_progress():
                encoder = fit(data, settings).encoder
            fitted = time.process_time()
            jacobian_deviation(encoder, features)
            print(
                f"N {n:6} {name:9} fit {fitted - start:5.0f} s, Jacobians "
                f"{time.process_time() - fitted:4.1f} s, {peak_memory_gb():.1f} GB so far",
                flush=True,
            )


if __name__ == "__main__":
    if not sys.argv[1:]:
        raise SystemExit(__doc__)
    main([int(n) for n in sys.argv[1:]])
