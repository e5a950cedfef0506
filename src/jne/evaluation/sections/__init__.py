"""The sections of the report, in the order of the page.

A section owns its tables, text, figures, captions, findings, MLflow scalars and caveats. A new one
is a module here with a subclass of `Section`, and one line in SECTIONS.

base         Section: what every section has
performance  R² and Pearson's r of both encoders, against the noise ceiling
comparison   the R² maps of the linear and the nonlinear encoder
maps         R² and JNE on the brain
hierarchy    JNE by region and tier
nonlinear    JNE against that of linear twins: which voxels are nonlinear
variants     JNE against its variants and the mean deviation
selectivity  JNE-SS by cluster of stimuli
reliability  JNE with other test stimuli and other seeds
"""

from jne.evaluation.sections.base import Section, evaluate_sections
from jne.evaluation.sections.comparison import Comparison
from jne.evaluation.sections.hierarchy import Hierarchy
from jne.evaluation.sections.maps import Maps
from jne.evaluation.sections.nonlinear import Nonlinear
from jne.evaluation.sections.performance import Performance
from jne.evaluation.sections.reliability import Reliability
from jne.evaluation.sections.selectivity import Selectivity
from jne.evaluation.sections.variants import Variants

SECTIONS: tuple[Section, ...] = (
    Performance(),
    Comparison(),
    Maps(),
    Hierarchy(),
    Nonlinear(),
    Variants(),
    Selectivity(),
    Reliability(),
)

__all__ = ["SECTIONS", "Section", "evaluate_sections"]
