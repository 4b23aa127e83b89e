"""The servers of the Model Context Protocol that the operator allows."""

from neuroedge.bootstrap.core import Core
from neuroedge.infra.mcp_client import McpClient, read_servers
from neuroedge.services.mcp_tools import McpTools


def mcp_tools_of(core: Core) -> McpTools:
    """Their tools. Raises InvalidInput for a file that does not describe them."""
    path = core.settings.mcp_servers or core.settings.data_dir / "mcp.toml"
    return McpTools(db=core.db, endpoints=read_servers(path), client=McpClient(), breakers=core.breakers)
