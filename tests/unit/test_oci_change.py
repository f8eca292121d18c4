"""`import --change`: Dockerfile instructions on a run config."""

from __future__ import annotations

from typing import Any

import pytest

from duckweed.errors import UsageError
from duckweed.oci.change import apply_changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (['CMD ["a", "b"]'], {"Cmd": ["a", "b"]}),
        (["cmd echo hi"], {"Cmd": ["/bin/sh", "-c", "echo hi"]}),
        (['ENTRYPOINT ["/e"]'], {"Entrypoint": ["/e"]}),
        (["ENV A=1 B='x y'", "ENV A=2"], {"Env": ["A=2", "B=x y"]}),
        (["ENV A the rest"], {"Env": ["A=the rest"]}),
        (["EXPOSE 80 53/udp 7-8"], {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "7/tcp": {}, "8/tcp": {}}}),
        (['LABEL a=1 "b c"=d'], {"Labels": {"a": "1", "b c": "d"}}),
        (["USER 7:8"], {"User": "7:8"}),
        (['VOLUME ["/a", "/b"]', "VOLUME /c"], {"Volumes": {"/a": {}, "/b": {}, "/c": {}}}),
        (["WORKDIR /a", "WORKDIR b/.."], {"WorkingDir": "/a"}),
        (["ONBUILD RUN x"], {"OnBuild": ["RUN x"]}),
        (["STOPSIGNAL SIGINT"], {"StopSignal": "SIGINT"}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (
            ["HEALTHCHECK --interval=1m30s --retries=2 CMD curl x"],
            {"Healthcheck": {"Interval": 90 * 10**9, "Retries": 2, "Test": ["CMD-SHELL", "curl x"]}},
        ),
    ],
)
def test_change_sets_what_the_instruction_says(changes: list[str], expected: dict[str, Any]) -> None:
    config: dict[str, Any] = {}
    apply_changes(config, changes)
    assert config == expected


@pytest.mark.parametrize(
    "change",
    [
        "RUN x",
        "",
        "CMD",
        "EXPOSE 0",
        "EXPOSE x",
        "LABEL a=1 b",
        "ENV A",
        "USER a b",
        "ONBUILD FROM x",
        "HEALTHCHECK x",
        "LABEL a='",
    ],
)
def test_bad_change_is_refused(change: str) -> None:
    with pytest.raises(UsageError):
        apply_changes({}, [change])
