"""From finished runs to the paper's findings: tables, figures and one report. Trains nothing.

python evaluate.py                                     # the newest runs of each subject
python evaluate.py "runs=[outputs/runs/A,outputs/runs/B]"
python evaluate.py "filter=params.activation = 'gelu'" voxels=all
"""

import hydra
from omegaconf import DictConfig

from jne.cli import run_script
from jne.machine import quick_imports


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def evaluate(composed: DictConfig) -> None:
    # Imported here: --help and a misspelt override answer before torch is loaded.
    with quick_imports():
        from jne.config import check_evaluate
        from jne.evaluation import evaluate_subjects
        from jne.evaluation_run import chosen_subjects, record_report
        from jne.record import check, hydra_folder

    config = check(check_evaluate, composed)
    subjects = check(chosen_subjects, config)
    with record_report(config, subjects, hydra_folder()) as report:
        report.write(evaluate_subjects(subjects, config))


if __name__ == "__main__":
    run_script(evaluate)
