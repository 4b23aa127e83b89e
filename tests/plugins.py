"""Third parties' engines for tests: a distribution as pip would leave it, on a path of its own."""

import os
from pathlib import Path


def install(folder: Path, *, module: str, source: str, engines: dict[str, str]) -> dict[str, str]:
    """Write a module and the metadata whose entry points name its engines; the environment that has it installed."""
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
    points = "\n".join(f"{name} = {module}:{cls}" for name, cls in engines.items())
    (info / "entry_points.txt").write_text(f"[neuroedge.engines]\n{points}\n")
    return {"PYTHONPATH": os.pathsep.join(part for part in (str(folder), os.environ.get("PYTHONPATH")) if part)}
