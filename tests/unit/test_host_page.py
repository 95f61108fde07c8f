"""The page on host tuning: its files are ones that are accepted, its commands are ones that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from penstock_daemon.config_load import load_config
from penstock_host.checklist.catalogue import ITEM_IDS
from penstock_host.cli import build_parser
from penstock_host.measure.tools import TOOLS
from penstock_host.profile import load_profile


@pytest.fixture(scope="module")
def page(repository_root: Path) -> str:
    return (repository_root / "docs" / "host-tuning.md").read_text(encoding="utf-8")


def test_daemon_and_profile_of_the_colocated_host_are_accepted(page: str, tmp_path: Path) -> None:
    daemon, profile = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "penstockd.toml").write_text(daemon)
    (tmp_path / "tune.toml").write_text(profile)
    config = load_config(tmp_path / "penstockd.toml", {}, (), cpus=range(8))
    chosen = load_profile(tmp_path / "tune.toml", {}, ITEM_IDS)
    assert chosen.hot_cores == {*config.engine.cores, *config.server.cores, *config.feed.cores} == {2, 3, 4}


def test_every_command_of_the_page_is_one_that_exists(page: str) -> None:
    commands = re.findall(r"(?:^ *(?:sudo )?|`(?:sudo )?)penstock-tune ([^`\n]*)", page, re.MULTILINE)
    assert len(commands) >= 15
    for command in commands:
        build_parser().parse_args(shlex.split(command.split("  ")[0]))


def test_every_measuring_mode_has_a_row(page: str) -> None:
    for mode in ("jitter", "path", *TOOLS):
        assert f"| `{mode}` |" in page
