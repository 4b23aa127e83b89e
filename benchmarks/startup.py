"""Start-up time, idle memory, `--help` and import cost: `python -m benchmarks.startup`."""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import figure, save
from benchmarks.serving import serve

IMPORT = (
    "import time, psutil; p = psutil.Process(); b = p.memory_info().rss; t = time.perf_counter();"
    "import sqlalchemy, sqlalchemy.dialects.postgresql, alembic.command;"
    "print(time.perf_counter() - t, (p.memory_info().rss - b) / 1e6)"
)


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    first, again, idle = [], [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            data_dir = Path(folder) / "data"
            with serve(data_dir) as server:
                first.append(server.ready_s)
            with serve(data_dir) as server:
                again.append(server.ready_s)
                time.sleep(2)
                idle.append(server.resident_mb())
    help_s, import_s, import_mb = [], [], []
    for _ in range(runs * 2):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "neuroedge", "--help"], capture_output=True, check=True)
        help_s.append(time.perf_counter() - started)
        seconds, mb = subprocess.check_output([sys.executable, "-c", IMPORT], text=True).split()
        import_s.append(float(seconds))
        import_mb.append(float(mb))
    save(
        "startup",
        [
            figure("first start, database made, until /ready", "s", first, at_most=15),
            figure("start on existing data, until /ready", "s", again, at_most=4),
            figure("`neuroedge --help`", "s", help_s, at_most=0.5),
            figure("idle server, no model loaded, resident", "MB", idle, at_most=250),
            figure("import of SQLAlchemy and Alembic", "s", import_s, note="paid only when migrating (ADR 1)"),
            figure("import of SQLAlchemy and Alembic, resident", "MB", import_mb, note="paid only when migrating"),
        ],
        title="Start-up and idle memory",
        command="python -m benchmarks.startup",
    )


if __name__ == "__main__":
    main()
