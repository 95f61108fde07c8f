"""docs/configuration.md says what the code does."""

from __future__ import annotations

from penstock_daemon.config_fields import keys
from penstock_daemon.config_text import render_page


def test_configuration_page_is_what_the_code_renders(repository_root):
    page = (repository_root / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == render_page(), "run: python -m penstock_daemon.config_text > docs/configuration.md"


def test_configuration_page_names_every_key():
    page = render_page()
    assert all(f"| `{key.path}` |" in page for key in keys())
