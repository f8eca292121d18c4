"""`--format` over rows and documents: what Docker's client 28.2 printed for the same (November 2026)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from duckweed.cli import format
from duckweed.cli.container_show import HEADERS
from duckweed.cli.format import Listing, TemplateProblem, document, show_rows

LISTING = Listing(HEADERS, ("ID", "Names"), (("id", "ID"), ("ports", "Ports")))


def row(name: str, **fields: Any) -> dict[str, Any]:
    return {**{field: "" for field in HEADERS}, "ID": "0123456789ab", "Names": name, "LabelMap": {}, **fields}


ROWS = [row("web", LabelMap={"com.example.my-role": "front"}, Ports="80/tcp"), row("db")]


def shown(capsys: pytest.CaptureFixture[str], template: str) -> str:
    show_rows(LISTING, ROWS, template)
    return capsys.readouterr().out


@pytest.mark.parametrize("template", ["", "table"])
def test_the_plain_table_has_the_default_columns(template: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, template) == "CONTAINER ID   NAMES\n0123456789ab   web\n0123456789ab   db\n"


def test_a_table_template_gets_headers_and_columns(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, r"table {{.Names}}\t{{upper .ID}}")
    assert text == "NAMES     CONTAINER ID\nweb       0123456789AB\ndb        0123456789AB\n"


def test_a_functions_header_is_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "table {{json .Names}}") == 'NAMES\n"web"\n"db"\n'


def test_a_labels_header_is_its_last_part(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, 'table {{.Names}}\t{{.Label "com.example.my-role"}}')
    assert text == "NAMES     my role\nweb       front\ndb        \n"


def test_backslash_t_and_n_are_a_tab_and_a_new_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, r"{{.Names}}\t|\n") == "web\t|\n\ndb\t|\n\n"


def test_json_is_one_object_a_line_without_our_own_field(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "json").splitlines()
    assert [json.loads(line)["Names"] for line in lines] == ["web", "db"]
    assert list(json.loads(lines[0])) == sorted(HEADERS)
    assert shown(capsys, "{{json .}}").splitlines()[0].count("LabelMap") == 0


def test_raw_is_a_line_for_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "raw") == "id: 0123456789ab\nports: 80/tcp\n\nid: 0123456789ab\nports:\n\n"


def test_a_template_that_cannot_be_read_is_told_from_one_that_does_not_fit() -> None:
    with pytest.raises(TemplateProblem, match="failed to parse template: ") as caught:
        show_rows(LISTING, ROWS, "{{.ID")
    assert caught.value.exit_code == 1
    with pytest.raises(TemplateProblem, match="failed to execute template: .*Foo"):
        show_rows(LISTING, ROWS, "{{.Foo}}")


def test_a_document_is_rendered_or_printed_as_json() -> None:
    data = {"State": {"ExitCode": 3}, "Names": ["a", "b"]}
    assert document("{{.State.ExitCode}} {{range .Names}}<{{.}}>{{end}}", data) == "3 <a><b>"
    assert document("json", data) == '{"State":{"ExitCode":3},"Names":["a","b"]}'
    assert document("{{json .State}}", data) == '{"ExitCode":3}'


def test_errors_over_a_document_have_dockers_words_and_codes() -> None:
    with pytest.raises(TemplateProblem, match="^template parsing error: ") as caught:
        document("{{.State", {})
    assert caught.value.exit_code == 64
    with pytest.raises(TemplateProblem, match="^template parsing error: .*Foo") as caught:
        document("{{.Foo}}", {"A": 1})
    assert caught.value.exit_code == 1


def test_bytes_that_are_no_text_do_not_stop_a_template() -> None:
    assert document("{{.Name}}", {"Name": "caf\udce9"}) == "caf\ufffd"


def test_pretty_has_four_blanks_a_level() -> None:
    assert format.pretty([{"A": ["é"]}]) == '[\n    {\n        "A": [\n            "é"\n        ]\n    }\n]'
