"""The sections of the report, in the order of the page.

A section owns its tables, text, figures, captions, findings, MLflow scalars and caveats. A new one
is a module here with a subclass of `Section`, and one line in SECTIONS.

base         Section: what every section has
regions      what sections say of whole regions, over stimuli
summary      one figure of all regions: the first screen
share        how much of the signal is nonlinear, by region, without an encoder
evidence     how much of it the encoder has found: its nonlinear part, in unseen responses
feature_spaces  in which of several feature spaces it is nonlinear
maps         R² and JNE on the brain
hierarchy    JNE by region and tier
performance  R² and Pearson's r of both encoders, against the noise ceiling
data_sets    several data sets in one space, and each against the others
comparison   the R² maps of the linear and the nonlinear encoder
out_of_distribution  R², JNE and evidence on an external test set
generalisation       what nonlinearity is worth there: R² above ridge regression, errors by JNE-SS
swept        runs that differ in one key: JNE and R² by layer, activation or placement
selectivity  JNE-SS by cluster of stimuli
switching    the directions of features along which Jacobians move, and stimuli at their ends
variants     JNE against its variants and the mean deviation
reliability  JNE with other test stimuli and other seeds
"""

from jne.evaluation.sections.base import Section, evaluate_sections
from jne.evaluation.sections.comparison import Comparison
from jne.evaluation.sections.data_sets import DataSets
from jne.evaluation.sections.evidence import Evidence
from jne.evaluation.sections.feature_spaces import FeatureSpaces
from jne.evaluation.sections.generalisation import Generalisation
from jne.evaluation.sections.hierarchy import Hierarchy
from jne.evaluation.sections.maps import Maps
from jne.evaluation.sections.out_of_distribution import OutOfDistribution
from jne.evaluation.sections.performance import Performance
from jne.evaluation.sections.reliability import Reliability
from jne.evaluation.sections.selectivity import Selectivity
from jne.evaluation.sections.share import Share
from jne.evaluation.sections.summary import Summary
from jne.evaluation.sections.swept import Swept
from jne.evaluation.sections.switching import Switches
from jne.evaluation.sections.variants import Variants

SECTIONS: tuple[Section, ...] = (
    Summary(),
    Share(),
    Evidence(),
    FeatureSpaces(),
    Maps(),
    Hierarchy(),
    DataSets(),
    Performance(),
    Comparison(),
    OutOfDistribution(),
    Generalisation(),
    Swept(),
    Selectivity(),
    Switches(),
    Variants(),
    Reliability(),
)

__all__ = ["SECTIONS", "Section", "evaluate_sections"]
