"""What is known of MOSAIC's data sets: names, kinds of stimuli, citations and terms."""

from dataclasses import dataclass

CITATION = "Lahner, Deb, Murty & Oliva (2025), MOSAIC, bioRxiv, doi 10.64898/2025.11.28.690060"
LICENCE = "MOSAIC's responses: CC BY 4.0"
LINK = "https://registry.opendata.aws/mosaic"


@dataclass(frozen=True)
class DataSet:
    """One of the data sets that MOSAIC holds."""

    long: str
    """Its name in MOSAIC's folders and in the files' attribute `dataset_name`."""
    stimuli: str
    """Its stimulus table is stimulus_info/STIMULI_stiminfo.tsv."""
    n_subjects: int
    citation: str
    link: str
    terms: str = "the data set's own terms, see its link"
    """Of the source, which hold beside MOSAIC's licence."""
    video: bool = False
    """Whether the stimuli are videos."""


DATA_SETS: dict[str, DataSet] = {
    "NSD": DataSet(
        "NaturalScenesDataset",
        "nsd",
        8,
        "Allen et al. (2022), A massive 7T fMRI dataset to bridge cognitive neuroscience and "
        "artificial intelligence, Nature Neuroscience 25, doi 10.1038/s41593-021-00962-x",
        "https://naturalscenesdataset.org",
        "NSD data access agreement",
    ),
    "BOLD5000": DataSet(
        "BOLD5000",
        "b5000",
        4,
        "Chang et al. (2019), BOLD5000, a public fMRI dataset while viewing 5000 visual images, "
        "Scientific Data 6, doi 10.1038/s41597-019-0052-3",
        "https://bold5000-dataset.github.io/website",
    ),
    "THINGS": DataSet(
        "THINGS",
        "things",
        3,
        "Hebart et al. (2023), THINGS-data, a multimodal collection of large-scale datasets for "
        "investigating object representations in human brain and behavior, eLife 12, "
        "doi 10.7554/eLife.82580",
        "https://things-initiative.org",
    ),
    "GOD": DataSet(
        "GenericObjectDecoding",
        "god",
        5,
        "Horikawa & Kamitani (2017), Generic decoding of seen and imagined objects using "
        "hierarchical visual features, Nature Communications 8, doi 10.1038/ncomms15037",
        "https://github.com/KamitaniLab/GenericObjectDecoding",
    ),
    "deeprecon": DataSet(
        "deeprecon",
        "deeprecon",
        3,
        "Shen et al. (2019), Deep image reconstruction from human brain activity, PLOS "
        "Computational Biology 15, doi 10.1371/journal.pcbi.1006633",
        "https://github.com/KamitaniLab/DeepImageReconstruction",
    ),
    "NOD": DataSet(
        "NaturalObjectDataset",
        "nod",
        30,
        "Gong et al. (2023), A large-scale fMRI dataset for the visual processing of naturalistic "
        "scenes, Scientific Data 10, doi 10.1038/s41597-023-02471-x",
        "https://openneuro.org/datasets/ds004496",
    ),
    "BMD": DataSet(
        "BOLDMomentsDataset",
        "bmd",
        10,
        "Lahner et al. (2024), Modeling short visual events through the BOLD Moments video fMRI "
        "dataset and metadata, Nature Communications 15, doi 10.1038/s41467-024-50310-3",
        "https://openneuro.org/datasets/ds005165",
        video=True,
    ),
    "HAD": DataSet(
        "HumanActionsDataset",
        "had",
        30,
        "Zhou et al. (2023), A large-scale fMRI dataset for human action recognition, Scientific "
        "Data 10, doi 10.1038/s41597-023-02325-6",
        "https://openneuro.org/datasets/ds004488",
        video=True,
    ),
}
"""By the short names in MOSAIC's file names."""
