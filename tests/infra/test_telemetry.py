"""Log lines of both kinds have one form, and no value breaks one."""

import json
import subprocess
import sys
from typing import Any

LINES = """
import logging, structlog
from neuroedge.infra.telemetry import configure_logging
configure_logging(level="info", fmt={fmt!r})
structlog.contextvars.bind_contextvars(request_id="r-1")
log = structlog.get_logger("ours")
log.debug("not written")
log.info("ours", value=1)
logging.getLogger("theirs").info("theirs %d", 2)
log.warning("odd", surrogate="\\ud800", bytes=b"\\xff", thing=object, nan=float("nan"))
try:
    raise ValueError("why")
except ValueError as error:
    log.error("failed", exc_info=error)
"""


def lines(fmt: str) -> list[str]:
    """What a process of its own writes to stderr: logging is configured for a whole process."""
    script = LINES.format(fmt=fmt)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


def test_our_lines_and_the_libraries_have_the_same_form() -> None:
    """JSON with event, level, logger, timestamp and the request's id."""
    ours, theirs, odd, failed = (json.loads(line) for line in lines("json"))
    common: dict[str, Any] = {"level": "info", "request_id": "r-1"}
    assert ours.pop("timestamp").endswith("Z")
    assert theirs.pop("timestamp").endswith("Z")
    assert ours == {"event": "ours", "logger": "ours", "value": 1, **common}
    assert theirs == {"event": "theirs 2", "logger": "theirs", **common}
    assert odd["level"] == "warning"
    assert odd["event"] == "odd"
    assert failed["exception"].endswith("ValueError: why")


def test_lines_for_people_hold_the_same() -> None:
    """The console form names event and values."""
    text = "\n".join(lines("console"))
    assert "value" in text
    assert "theirs 2" in text
    assert "not written" not in text
