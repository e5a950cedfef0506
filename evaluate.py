r"""From finished runs to the paper's findings: tables, figures and one report. Trains nothing.

python evaluate.py                                     # the newest runs of each subject
python evaluate.py "runs=[outputs/runs/A,outputs/runs/B]"
python evaluate.py "filter='params.activation = \"gelu\"'" voxels=all
"""

from jne.utils.loading import say_loading

say_loading()  # before what takes long to import

import hydra
from omegaconf import DictConfig

from jne.cli import never_exits, run_script
from jne.utils.machine import imports_without_gc


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
@never_exits
def evaluate(composed: DictConfig) -> None:
    # Imported here: --help and a misspelt override are answered before torch is loaded.
    with imports_without_gc():
        from jne.evaluation.chosen import chosen_subjects
        from jne.evaluation.config import check_config
        from jne.evaluation.report import build_page, collect_findings
        from jne.evaluation.run import open_report
        from jne.evaluation.sections import SECTIONS, evaluate_sections
        from jne.evaluation.voxels import voxel_tables
        from jne.runs.session import check_or_discard_folder, hydra_folder

    config = check_or_discard_folder(check_config, composed)
    subjects = check_or_discard_folder(chosen_subjects, config)  # each with its runs
    folder = hydra_folder()

    with open_report(config, subjects, folder) as report:
        data = voxel_tables(subjects, config, report.stages)
        results = evaluate_sections(SECTIONS, data)
        report.write_tables(data, results)
        figures = report.draw(data, results)
        findings = collect_findings(data, results)
        page = build_page(
            data, results, figures, findings, folder, report.voxel_table, report.files
        )
        report.finish(page, findings)


if __name__ == "__main__":
    run_script(evaluate)
