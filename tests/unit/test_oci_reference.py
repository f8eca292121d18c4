"""References: what users type, in Docker's grammar and Docker's words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duckweed.errors import UsageError
from duckweed.oci.reference import Reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("localhost/busybox", "localhost/busybox:latest", "localhost/busybox:latest"),
        ("localhost:5000/a/b:v2", "localhost:5000/a/b:v2", "localhost:5000/a/b:v2"),
        (
            "registry.example/a/b_c/d--e",
            "registry.example/a/b_c/d--e:latest",
            "registry.example/a/b_c/d--e:latest",
        ),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("Caps/app", "Caps/app:latest", "Caps/app:latest"),
        ("a@" + DIGEST, "docker.io/library/a@" + DIGEST, "a@" + DIGEST),
        ("a:b@" + DIGEST, "docker.io/library/a:b@" + DIGEST, "a:b@" + DIGEST),
    ],
)
def test_reference_is_read_as_docker_reads_it(text: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert (str(reference), reference.familiar) == (canonical, familiar)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        (":tag", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:-x", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("a@sha256:abc", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("../etc/passwd", "invalid reference format"),
        ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("f" * 64, f"invalid repository name ({'f' * 64}), cannot specify 64-byte hexadecimal strings"),
        ("a/" + "b" * 260, "repository name must not be more than 255 characters"),
    ],
)
def test_bad_reference_is_refused_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Reference.parse(text)
    assert caught.value.message == message


@settings(database=None)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_and_what_is_read_reads_the_same_again(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except UsageError:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference
