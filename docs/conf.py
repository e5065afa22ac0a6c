"""How Sphinx builds the site: `make docs`. Warnings are errors there."""

from __future__ import annotations

import dataclasses
from typing import Any

import langbatch
import langbatch.emulator

project = "langbatch"
html_title = "langbatch"
release = langbatch.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
# Commands are quoted as they are typed.
smartquotes = False
exclude_patterns = ["_site", "making"]
myst_heading_anchors = 3

# ---------------------------------------------------------------- the reference of Python names

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "undoc-members": True, "no-value": True}
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
#: Docstrings are written for readers of code: what stands in backticks is a name where it is one, else code.
default_role = "py:obj"

#: Where public names really live; people are told the promised paths only.
HOMES = {
    f"{value.__module__}.{name}": f"{package.__name__}.{name}"
    for package in (langbatch, langbatch.emulator)
    for name in package.__all__
    if (value := getattr(package, name)).__class__ is not dict
}


def signature(_app: Any, kind: str, _name: str, value: Any, _options: Any, given: Any, result: Any) -> Any:
    """None for what readers are handed and never make, records and errors; their parts are listed anyway."""
    if kind == "exception" or (dataclasses.is_dataclass(value) and value.__module__ not in MADE_BY_READERS):
        return "", None
    return given and given.replace("= <factory>", "= {}"), result


def at_promised_path(app: Any, env: Any, node: Any, content: Any) -> Any:
    """What is referred to by the module it lives in is found where it is promised."""
    target = HOMES.get(node.get("reftarget", ""))
    if target is None:
        return None
    python = env.get_domain("py")
    return python.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], target, node, content)


#: Modules of records that readers do make.
MADE_BY_READERS = ("langbatch.emulator.config",)


# ---------------------------------------------------------------- how it looks

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["langbatch.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#1f6fb5", "color-brand-content": "#1f6fb5"},
    "dark_css_variables": {"color-brand-primary": "#6fb3ee", "color-brand-content": "#6fb3ee"},
}
pygments_style = "default"
pygments_dark_style = "github-dark"
highlight_language = "text"


def setup(app: Any) -> None:
    app.connect("autodoc-process-signature", signature)
    app.connect("missing-reference", at_promised_path)
