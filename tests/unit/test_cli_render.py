"""Tables and rows, compared with what Docker's client 28.2 printed for the same data (November 2026)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from duckweed.cli import render
from duckweed.cli.container_show import row
from duckweed.cli.image_show import history_row, image_rows

WEB: dict[str, Any] = {
    "Id": "a" * 64,
    "Names": ["/web"],
    "Image": "busybox:latest",
    "ImageID": "sha256:" + "b" * 64,
    "Command": "sh -c 'echo hello; sleep 1000'",
    "Created": 0,
    "Ports": [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ],
    "Labels": {"com.example.role": "web-x", "a": "1"},
    "State": "running",
    "Status": "Up 2 minutes",
    "NetworkSettings": {"Networks": {"none": {}}},
    "Mounts": [
        {"Type": "volume", "Name": "data", "Source": "/x", "Destination": "/d"},
        {"Type": "bind", "Source": "/home/user/a/very/long/path", "Destination": "/e"},
    ],
}


def test_columns_are_as_wide_as_their_widest_cell_and_three() -> None:
    assert render.table(["A", "NAMES"], [["x" * 12, "web"], ["y", "db"]]) == (
        "A              NAMES\nxxxxxxxxxxxx   web\ny              db\n"
    )


def test_columns_are_at_least_ten_wide_and_the_last_is_not_padded() -> None:
    assert (
        render.table(["DRIVER", "VOLUME NAME"], [["local", "data"]])
        == "DRIVER    VOLUME NAME\nlocal     data\n"
    )


def test_a_line_without_the_cell_ends_the_column() -> None:
    assert (
        render.align([["a" * 20, "b"], ["c"], ["d", "e"]]) == "a" * 20 + "   b\nc\n" + "d".ljust(10) + "e\n"
    )


def test_an_empty_table_is_its_header() -> None:
    assert render.table(["DRIVER", "VOLUME NAME"], []) == "DRIVER    VOLUME NAME\n"


def test_a_row_of_ps_is_shortened_as_docker_does() -> None:
    fields = row({**WEB, "Created": time.time() - 130})
    assert fields["Command"] == '"sh -c \'echo hello; …"'
    assert fields["ID"] == "a" * 12
    assert fields["Mounts"] == "data,/home/user/a/v…"
    assert fields["Labels"] == "a=1,com.example.role=web-x"
    assert fields["LocalVolumes"] == "1"
    assert fields["RunningFor"] == "2 minutes ago"
    assert fields["Networks"] == "none"
    assert (fields["Names"], fields["Size"]) == ("web", "0B")


def test_no_trunc_shortens_nothing() -> None:
    fields = row(WEB, full=True)
    assert fields["Command"] == "\"sh -c 'echo hello; sleep 1000'\""
    assert (fields["ID"], fields["Mounts"]) == ("a" * 64, "data,/home/user/a/very/long/path")


def test_ports_that_are_moved_come_last() -> None:
    assert row(WEB)["Ports"] == "443/tcp, 0.0.0.0:8080->80/tcp"


def test_neighbouring_ports_are_a_range() -> None:
    ports = [{"PrivatePort": number, "Type": "tcp"} for number in (8002, 8000, 8001, 9000)]
    assert row({**WEB, "Ports": ports})["Ports"] == "8000-8002/tcp, 9000/tcp"


def test_an_image_known_by_id_only_is_shown_short() -> None:
    digest = "sha256:" + "b" * 64
    assert row({**WEB, "Image": digest})["Image"] == "b" * 12
    assert row({**WEB, "Image": digest}, full=True)["Image"] == digest


def test_sizes_have_three_digits_and_the_whole() -> None:
    assert row({**WEB, "SizeRw": 1234567, "SizeRootFs": 99999999})["Size"] == "1.23MB (virtual 100MB)"


@pytest.mark.parametrize(
    ("text", "literal"), [('a"b\\\n\té', '"a\\"b\\\\\\n\\té"'), ("\x01\u200b", '"\\x01\\u200b"'), ("", '""')]
)
def test_commands_are_quoted_as_go_does(text: str, literal: str) -> None:
    assert render.quoted(text) == literal


IMAGE = {
    "Id": "sha256:" + "b" * 64,
    "RepoTags": ["busybox:latest", "localhost:5000/bb:1"],
    "RepoDigests": ["busybox@sha256:" + "d" * 64],
    "Created": "2026-01-02T03:04:05Z",
    "Size": 4433221,
}


def test_an_image_has_a_row_for_each_tag() -> None:
    rows = [(line["Repository"], line["Tag"], line["ID"], line["Size"]) for line in image_rows(IMAGE)]
    assert rows == [("busybox", "latest", "b" * 12, "4.43MB"), ("localhost:5000/bb", "1", "b" * 12, "4.43MB")]


def test_digests_belong_to_their_repository() -> None:
    digests = [line["Digest"] for line in image_rows(IMAGE, digests=True)]
    assert digests == ["sha256:" + "d" * 64, "<none>"]


def test_an_image_without_tags_is_none() -> None:
    (line,) = image_rows({**IMAGE, "RepoTags": [], "RepoDigests": []})
    assert (line["Repository"], line["Tag"]) == ("<none>", "<none>")


def test_an_image_without_a_date_has_no_age() -> None:
    (line, _) = image_rows({**IMAGE, "Created": "0001-01-01T00:00:00Z"})
    assert (line["CreatedSince"], line["CreatedAt"]) == ("N/A", "N/A")


def test_history_is_for_people_or_exact() -> None:
    entry = {
        "Id": "<missing>",
        "Created": time.time() - 7200,
        "CreatedBy": 'CMD ["sh"]\tand a long line that should be cut somewhere here',
        "Size": 4433221,
        "Comment": "",
    }
    line = history_row(entry)
    assert line["CreatedBy"] == 'CMD ["sh"] and a long line that should be cu…'
    assert (line["ID"], line["Size"], line["CreatedSince"]) == ("<missing>", "4.43MB", "2 hours ago")
    assert history_row(entry, human=False)["Size"] == "4433221"


def test_times_are_local_with_their_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XYZ-5:30")
    time.tzset()
    try:
        assert render.local_time(0) == "1970-01-01 05:30:00 +0530 XYZ"
        assert render.rfc3339_local(0) == "1970-01-01T05:30:00+05:30"
    finally:
        monkeypatch.undo()
        time.tzset()
