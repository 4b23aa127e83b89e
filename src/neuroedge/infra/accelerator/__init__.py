"""One device, several processes: an exclusive lease over Valkey before which all others leave the device.

The protocol, its keys and its messages: docs/adr/0005-accelerator-lease.md.
"""

from neuroedge.infra.accelerator.coordinator import Accelerator
from neuroedge.infra.accelerator.membership import Participant
from neuroedge.infra.accelerator.metrics import AcceleratorMetrics
from neuroedge.infra.accelerator.tenure import Lease

__all__ = ["Accelerator", "AcceleratorMetrics", "Lease", "Participant"]
