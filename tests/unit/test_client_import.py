"""Importing the client loads little, and nothing that a strategy's environment does not have."""

from __future__ import annotations

import subprocess
import sys

import penstock_client

FOREIGN = {
    "numba",
    "llvmlite",
    "cupy",
    "scipy",
    "pyarrow",
    "databento_dbn",
    "structlog",
    "rich",
    "matplotlib",
    "uvloop",
}
OF_THE_HOUSE = {"penstock_daemon", "penstock_kernels", "penstock_tuning", "penstock_host"}


def modules_after(statement: str) -> set[str]:
    program = f"{statement}; import sys; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_package_alone_loads_neither_grpc_nor_numpy():
    assert not modules_after("import penstock_client") & {"grpc", "numpy", "google", "asyncio"}


def test_a_session_loads_only_what_the_base_install_has():
    loaded = modules_after("from penstock_client import *; import penstock_client.blocking, penstock_client.admin")
    assert {"grpc", "numpy", "google"} <= loaded
    assert not loaded & (FOREIGN | OF_THE_HOUSE)


def test_every_exported_name_can_be_loaded_and_an_unknown_one_says_so():
    for name in penstock_client.__all__:
        assert getattr(penstock_client, name).__name__ == name
    assert set(penstock_client.__all__) <= set(dir(penstock_client))
    assert not hasattr(penstock_client, "nonsense")
