"""The default models in a benchmark's own process, as the server opens them."""

from neuroedge.bootstrap import catalogue_of
from neuroedge.runtimes import device
from neuroedge.runtimes.device import Router
from neuroedge.runtimes.pool import Pool, PoolSettings
from neuroedge.settings import load_settings


def pool() -> Pool:
    """On the processor, with all its cores and the calibration that is kept beside the models; the caller closes it."""
    settings, cores = load_settings(), device.available_cores()
    options = {"calibration_dir": str(settings.model_store / "calibration")}
    return Pool(
        catalogue_of(settings),
        PoolSettings(cores=cores, threads=cores, budget_bytes={}, options=options),
        router=Router("cpu"),
    )
