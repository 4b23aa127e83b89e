"""Builds the platform. Nothing else constructs adapters, and importing this does nothing.

What a name needs is imported when the name is first used: the catalogue and the servers, which most commands make do
with, come without the services and the web.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroedge.bootstrap.inference import catalogue_of
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
]
_MODULES = {
    "Servers": "servers",
    "app_password": "servers",
    "build_app": "platform",
    "catalogue_of": "inference",
    "open_platform": "platform",
    "open_servers": "servers",
    "open_vault": "servers",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
