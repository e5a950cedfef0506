"""Simulations with known truth: activation curves, placement, sample size, inputs, depth.

python simulate.py                              # the placement grid
python simulate.py simulation=all               # the paper's four studies
python simulate.py simulation=depth simulation.depth.n_draws=5
"""

from jne.utils.loading import say_loading

say_loading()  # before what takes long to import

import hydra
from omegaconf import DictConfig

from jne.cli import never_exits, run_script
from jne.utils.machine import imports_without_gc


@hydra.main(version_base="1.3", config_path="conf", config_name="simulate")
@never_exits
def simulate(composed: DictConfig) -> None:
    # Imported here: --help and a misspelt override answer before torch is loaded.
    with imports_without_gc():
        from jne.runs.session import check_or_discard_folder, hydra_folder
        from jne.simulation.config import check_config
        from jne.simulation.run import record_study
        from jne.utils.files import file_name

    config, studies = check_or_discard_folder(check_config, composed)
    for name, study in studies.items():
        record_study(config, name, study, hydra_folder() / file_name(name))


if __name__ == "__main__":
    run_script(simulate)
