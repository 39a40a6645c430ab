"""Sphinx configuration: `tox -e docs`, or `sphinx-build -W -n docs docs/_build`."""

from proxymw import __version__

project = "proxymw"
copyright = "2026, the proxymw authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "exclude-members": "send, origin, app, id, lbfactor, flags"}
add_module_names = False
nitpicky = True
# Only our own names can be looked up: the build must work without a network.
nitpick_ignore_regex = [("py:.*", r"(?!proxymw).*")]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"proxymw {release}"
html_static_path: list[str] = []
