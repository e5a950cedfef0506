"""How the documentation is built, by `make docs`. Neither building nor reading needs a network."""

import os
import warnings

from jne import __version__

# The examples run train.py in other processes, which compute with one thread like this one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "jne"
author = "The jne developers"
copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx-mathjax-offline",  # equations: MathJax is copied into the site
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
nitpicky = True
# Without the inventories of other projects, only references into this package can be checked. In
# docstrings, single backticks are links where there is something to link to.
nitpick_ignore_regex = [(r".*", r"(?!jne\.).*"), ("py:obj", ".*")]

# --- pages ---
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
highlight_language = "text"
html_theme = "furo"
html_title = f"jne {release}"
html_static_path = ["_static"]
html_css_files = ["jne.css"]
html_js_files = ["accessible.js"]
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}

# --- docstrings ---
default_role = "py:obj"
autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's sections say more
autodoc_member_order = "bysource"
numpydoc_class_members_toctree = False
numpydoc_show_inherited_class_members = False
numpydoc_validation_checks = {"GL08", "PR01", "PR02", "PR03", "PR10"}
numpydoc_validation_exclude = {  # their fields or methods have short docstrings of their own
    r"\.(Clusters|Evidence|Features|HasResidualChain|Measurement|Prepared|Share|Source)$",
    r"\.(JNERegressor|ResidualLayer|Results|Section|SpaceEvidence|Switching)\b",
    r"\.MeasureJNE\.",  # Lightning documents its hooks
}

# --- the gallery ---
# Of libraries, and nothing that a reader should change
for message in ("`torch.jit.script` is deprecated", r"`isinstance\(treespec, LeafSpec\)`"):
    warnings.filterwarnings("ignore", message)
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"plot_",
    "within_subsection_order": "FileNameSortKey",
    "doc_module": ("jne",),
    "reference_url": {"jne": None},
    "backreferences_dir": "gallery/backreferences",
    "matplotlib_animations": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "download_all_examples": False,
    "abort_on_example_error": True,
    "image_srcset": ["2x"],
    "ignore_repr_types": "matplotlib",  # what the last call on axes returns
    "min_reported_time": float("inf"),  # the time depends on the machine
}
