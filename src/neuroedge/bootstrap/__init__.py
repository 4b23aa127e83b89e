"""Builds the platform. Nothing else constructs adapters, and importing this does nothing."""

from neuroedge.bootstrap.inference import catalogue_of
from neuroedge.bootstrap.jobs import run_worker
from neuroedge.bootstrap.platform import build_app, open_platform
from neuroedge.bootstrap.servers import Servers, app_password, open_servers, open_vault

__all__ = [
    "Servers",
    "app_password",
    "build_app",
    "catalogue_of",
    "open_platform",
    "open_servers",
    "open_vault",
    "run_worker",
]
