"""The documentation site: every notebook with its saved outputs, the public face as a reference, the command line,
and search. Built by `make docs`."""

project = "speciarl"
author = "The speciarl developers"
copyright = "2026, The speciarl developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
root_doc = "contents"
html_theme = "furo"
html_title = "speciarl"
html_show_sourcelink = False
nb_execution_mode = "off"  # pages show what is committed; tests run the notebooks
nb_number_source_lines = False
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header"]
