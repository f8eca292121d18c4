"""What a container's directory says of its life, checked against the kernel.

state.json is written by the supervisor; `running` is believed only while that supervisor lives. What is
found dead is told as exited with 137 (the supervisor was killed, and its init died with it).
"""

from __future__ import annotations

import json
import os
import time

from duckweed import _core
from duckweed.containers.quantities import human_duration, parse_rfc3339, rfc3339
from duckweed.store.scratch import boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NEVER = "0001-01-01T00:00:00Z"


class State:
    """One reading. `status` is "created", "running" or "exited"; `lost` marks a supervisor that died without
    a word.
    """

    __slots__ = (
        "auto_remove",
        "document",
        "elsewhere",
        "error",
        "exit_code",
        "finished_at",
        "lost",
        "pid",
        "socket",
        "started_at",
        "status",
        "supervisor_pid",
    )

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.status = str(document.get("status") or "created")
        self.pid = int(document.get("pid") or 0)
        self.supervisor_pid = int(document.get("supervisor_pid") or 0)
        self.exit_code = int(document.get("exit_code") or 0)
        self.error = str(document.get("error") or "")
        self.started_at = str(document.get("started_at") or NEVER)
        self.finished_at = str(document.get("finished_at") or NEVER)
        self.socket = str(document.get("socket") or "")
        self.auto_remove = bool(document.get("auto_remove"))
        self.elsewhere = ""
        self.lost = False
        if self.status == "running":
            self._believe(document)
        if self.status != "running":
            self.pid = 0

    def _believe(self, document: dict[str, Any]) -> None:
        host = document.get("host") or ""
        if host and host != os.uname().nodename:
            self.elsewhere = str(host)
            return
        is_ours = document.get("boot_id") == boot_id() and self.supervisor_pid > 0
        if is_ours and _core.process_start(self.supervisor_pid) == document.get("supervisor_start"):
            return
        self.lost = True
        self.status = "exited"
        self.exit_code = 137
        if self.finished_at == NEVER:
            self.finished_at = rfc3339(time.time_ns())

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def is_leftover(self) -> bool:
        """Ended, and was to be removed then: whoever killed its supervisor killed the remover."""
        return self.status == "exited" and self.auto_remove

    def words(self) -> str:
        """`Up 3 minutes`, `Exited (0) 2 seconds ago`, `Created`: the STATUS column of ps."""
        now = time.time()
        if self.status == "running":
            words = f"Up {human_duration(_age(self.started_at, now))}"
            return f"{words} (on {self.elsewhere})" if self.elsewhere else words
        if self.status == "exited":
            return f"Exited ({self.exit_code}) {human_duration(_age(self.finished_at, now))} ago"
        return self.status.capitalize()


def _age(moment: str, now: float) -> float:
    nanoseconds = parse_rfc3339(moment)
    return max(0.0, now - nanoseconds / 1e9) if nanoseconds is not None else 0.0


def read_state(directory: str) -> State:
    """The state of the container in `directory`; one without a state.json was never started."""
    try:
        with open(f"{directory}/state.json", "rb") as file:
            document = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        document = {}
    except (OSError, ValueError):
        document = {"status": "dead", "error": "state.json cannot be read"}
    return State(document if isinstance(document, dict) else {"status": "dead"})
