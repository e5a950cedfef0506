"""From finished runs to the paper's findings: tables, figures and one report. Trains nothing.

python evaluate.py                                     # the newest runs of each subject
python evaluate.py "runs=[outputs/runs/A,outputs/runs/B]"
python evaluate.py "filter=params.activation = 'gelu'" voxels=all
"""

import hydra
from omegaconf import DictConfig

from jne.cli import run_script


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def evaluate(composed: DictConfig) -> None:
    # Imported here: --help and a misspelt override answer before torch is loaded.
    from jne import run
    from jne.config import check_evaluate
    from jne.evaluation import evaluate_subjects

    config = run.check(check_evaluate, composed)
    subjects = run.check(run.chosen_subjects, config)
    with run.record_report(config, subjects, run.hydra_folder()) as report:
        report.write(evaluate_subjects(subjects, config))


if __name__ == "__main__":
    run_script(evaluate)
