"""The corpus of Dockerfiles: each case's config and tree are what Docker's reference says, or what buildah made
of it (corpus/expected.json says which version, and when).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import duckweed
from build.cases import CORPUS, Case, difference, read_cases, read_tree
from duckweed.errors import DuckweedError

CASES = read_cases()
EXPECTED = json.loads((CORPUS / "expected.json").read_text())["cases"]
# Where buildah does something else than BuildKit, with the reason.
DIFFERS: dict[str, dict[str, Any]] = json.loads((CORPUS / "differs.json").read_text())


@pytest.fixture(scope="session")
def engine(root: Path, busybox: str) -> duckweed.Engine:
    """The engine over the shared store."""
    return duckweed.Engine(root)


@pytest.fixture(scope="session")
def base(engine: duckweed.Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tree of busybox itself."""
    place = tmp_path_factory.mktemp("base")
    (place / "Dockerfile").write_text("FROM busybox\n")
    engine.build(place, output=[f"type=tar,dest={place}/tree.tar"])
    return read_tree((place / "tree.tar").read_bytes())


def expectation(case: Case) -> dict[str, Any]:
    written = case.expect
    if written is None:
        written = dict(EXPECTED.get(case.name) or {})
    written.update({key: value for key, value in DIFFERS.get(case.name, {}).items() if key != "reason"})
    return written


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """A config as it is compared: what says nothing left out."""
    config = {key: value for key, value in config.items() if value and key != "ArgsEscaped"}
    if config.get("WorkingDir") == "/":
        del config["WorkingDir"]
    # buildah signs its work.
    labels = {name: text for name, text in config.pop("Labels", {}).items() if name != "io.buildah.version"}
    return {**config, "Labels": labels} if labels else config


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_corpus(case: Case, engine: duckweed.Engine, base: dict[str, str], tmp_path: Path) -> None:
    expected = expectation(case)
    assert expected, "neither buildah nor the case says what is to come out"
    context = tmp_path / "context"
    case.write_context(context)
    outputs = ["type=image", f"type=tar,dest={tmp_path}/tree.tar"]
    if "error" in expected:
        with pytest.raises(DuckweedError) as error:
            engine.build(context, output=outputs, **case.args)
        assert expected["error"] in error.value.message
        assert "\n" not in error.value.message
        return
    image = engine.build(context, output=outputs, **case.args)
    assert image is not None
    if "config" in expected:
        wanted = plain(expected["config"])
        found = plain(image.run_config)
        assert (found if case.expect is None else {key: found.get(key) for key in wanted}) == wanted
    if "tree" in expected:
        from_scratch = not any(layer in image.diff_ids for layer in engine.images.get("busybox").diff_ids)
        tree = read_tree((tmp_path / "tree.tar").read_bytes())
        assert difference(tree, {} if from_scratch else base) == expected["tree"]


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 150
