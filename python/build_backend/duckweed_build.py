"""The PEP 517 backend: builds the static helper, then lets maturin build the wheel around it.

maturin packs one extension module; duckweed also ships `duckweed-runtime`, a
static executable. This backend runs cargo for the helper first and leaves it in
`python/duckweed/_bin/`, from where maturin takes it into the wheel with its mode
(`include` in pyproject.toml). So `pip install .` on a clean clone needs nothing
but cargo and a C compiler. A release wheel is the same call with
`MATURIN_PEP517_ARGS="--zig --compatibility manylinux2014"`.

The helper is linked statically against glibc: it must start inside places whose
loader and libc it does not know, and a static start is 0.5 ms cheaper than a
dynamic one. It is not position independent, which saves it relocating itself.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys

import maturin

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
HELPER = os.path.join(TOP, "python", "duckweed", "_bin", "duckweed-runtime")
STATIC = "-C target-feature=+crt-static -C relocation-model=static"

get_requires_for_build_wheel = maturin.get_requires_for_build_wheel
get_requires_for_build_sdist = maturin.get_requires_for_build_sdist
get_requires_for_build_editable = maturin.get_requires_for_build_editable
build_sdist = maturin.build_sdist


def build_helper() -> str:
    """Builds `duckweed-runtime`; returns where it was put. Raises SystemExit, one line, when cargo fails."""
    if shutil.which("cargo") is None:
        raise SystemExit(
            "duckweed: building from source needs cargo (Rust 1.91+) in PATH; a release wheel needs none"
        )
    target = f"{platform.machine()}-unknown-linux-gnu"
    out = os.path.join(TOP, "target", "static")
    env = dict(os.environ, RUSTFLAGS=f"{os.environ.get('RUSTFLAGS', '')} {STATIC}".strip())
    command = [
        "cargo",
        "build",
        "--profile",
        "runtime",
        "-p",
        "duckweed-runtime",
        "--bin",
        "duckweed-runtime",
    ]
    command += ["--target", target, "--target-dir", out]
    if os.path.exists(os.path.join(TOP, "Cargo.lock")):
        command.append("--locked")
    if subprocess.run(command, cwd=TOP, env=env).returncode != 0:
        raise SystemExit("duckweed: cargo could not build duckweed-runtime (its messages are above)")
    os.makedirs(os.path.dirname(HELPER), exist_ok=True)
    part = HELPER + ".part"
    shutil.copyfile(os.path.join(out, target, "runtime", "duckweed-runtime"), part)
    os.chmod(part, 0o755)
    os.replace(part, HELPER)
    return HELPER


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):  # type: ignore[no-untyped-def]
    """PEP 517 hook."""
    build_helper()
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):  # type: ignore[no-untyped-def]
    """PEP 660 hook."""
    build_helper()
    return maturin.build_editable(wheel_directory, config_settings, metadata_directory)


prepare_metadata_for_build_wheel = maturin.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = maturin.prepare_metadata_for_build_editable

if __name__ == "__main__":
    sys.stdout.write(build_helper() + "\n")
