"""The daemon's configuration, as the rest of the daemon sees it.

    config = load_config(path, os.environ, sets)      a sound Config, or one ConfigError with every fault

The keys are in ``config_fields``, their limits in ``config_limits``, reading in ``config_load``, writing in
``config_text``.
"""

from __future__ import annotations

from penstock_daemon.config_budget import BudgetConfig, PathBudgetConfig
from penstock_daemon.config_feed import FeedConfig
from penstock_daemon.config_fields import (
    Config,
    ConfigError,
    EngineConfig,
    LogConfig,
    MemoryConfig,
    MetricsConfig,
    ModelsConfig,
    OnlineConfig,
    RecordConfig,
    ServerConfig,
    SessionsConfig,
)
from penstock_daemon.config_load import load_config
from penstock_daemon.config_shared_memory import SharedMemoryConfig
from penstock_daemon.config_text import render_toml

__all__ = [
    "BudgetConfig",
    "Config",
    "ConfigError",
    "EngineConfig",
    "FeedConfig",
    "LogConfig",
    "MemoryConfig",
    "MetricsConfig",
    "ModelsConfig",
    "OnlineConfig",
    "PathBudgetConfig",
    "RecordConfig",
    "ServerConfig",
    "SessionsConfig",
    "SharedMemoryConfig",
    "load_config",
    "render_toml",
]
