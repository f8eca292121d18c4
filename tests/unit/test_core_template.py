"""Go templates as `--format` uses them: Docker's functions, and mistakes in one line."""

from __future__ import annotations

import pytest

from duckweed import _core

ROW = '{"ID":"ab12","Names":"web","Labels":"a=1","LabelMap":{"a":"1"},"Ports":[80,443],"Size":0}'


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.ID}}\t{{.Names}}", "ab12\tweb"),
        ("{{json .Ports}}", "[80,443]"),
        ('{{join (split "a,b" ",") "-"}}', "a-b"),
        ('{{upper .Names}} {{title "some words"}} {{lower "ABC"}}', "WEB Some Words abc"),
        ("{{pad .Names 1 2}}|", " web  |"),
        ("{{truncate .ID 2}}", "ab"),
        ('{{.Label "a"}}{{.Label "none"}}', "1"),
        ("{{range .Ports}}{{.}};{{end}}", "80;443;"),
        ("{{if eq .Size 0}}empty{{end}}", "empty"),
        ('{{printf "%s-%d" .Names 3}} {{len .Ports}} {{index .Ports 1}}', "web-3 2 443"),
        ('no action, .Label "a" stays', 'no action, .Label "a" stays'),
    ],
)
def test_dockers_functions_answer_as_documented(template: str, expected: str) -> None:
    assert _core.render_template(template, ROW) == expected


def test_json_of_the_row_hides_what_is_only_for_label() -> None:
    assert "LabelMap" not in _core.render_template("{{json .}}", ROW)


@pytest.mark.parametrize(
    "template", ["{{.ID", "{{nosuch .ID}}", "{{.Missing}}", "{{join .ID}}", "{{index .Ports 9}}"]
)
def test_mistakes_are_one_line(template: str) -> None:
    with pytest.raises(ValueError, match="^template[^\n]*$"):
        _core.render_template(template, ROW)
