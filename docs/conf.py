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


def _deviations() -> str:
    """The reasons in tests/oracle/deviations.toml, by section, as a Markdown list."""
    import re
    import tomllib
    from pathlib import Path

    text = (Path(__file__).parent.parent / "tests" / "oracle" / "deviations.toml").read_text()
    parts = re.split(r"^# -- (.+?) -+$", text, flags=re.MULTILINE)
    told = []
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        reasons = dict.fromkeys(one["reason"] for one in tomllib.loads(body).get("deviation", ()))
        escaped = (re.sub(r"([\\`*_<>\[\]])", r"\\\1", reason) for reason in reasons)
        told += [f"## {title[0].upper()}{title[1:]}", *(f"- {reason[0].upper()}{reason[1:]}" for reason in escaped)]
    return re.sub(r"(?m)^(## .*)$", r"\n\1\n", "\n".join(told))


def setup(app):
    def read(app, name, source):
        if name == "explanation/apache":
            source[0] = source[0].replace("<!-- deviations -->", _deviations())

    app.connect("source-read", read)
