"""The paper's simulations, with known truth: activation curves, placement, sample size, inputs.

python simulate.py                              # the placement grid
python simulate.py simulation=all               # the paper's four
python simulate.py simulation=depth simulation.depth.n_draws=5
"""

import hydra
from omegaconf import DictConfig

from jne.cli import run_script


@hydra.main(version_base="1.3", config_path="conf", config_name="simulate")
def simulate(composed: DictConfig) -> None:
    # Imported here: --help and a misspelt override answer before torch is loaded.
    from jne import run
    from jne.config import check_simulate

    config, studies = run.check(check_simulate, composed)
    for name, study in studies.items():
        run.record_study(config, name, study, run.hydra_folder() / name)


if __name__ == "__main__":
    run_script(simulate)
