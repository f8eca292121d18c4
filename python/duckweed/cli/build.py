"""`build`: an image from a Dockerfile, with the flags of `docker build` and `docker buildx build`."""

from __future__ import annotations

import sys

from duckweed.cli.parse import BOOL, LIST, STRING, Call, Flag, Refused, verb
from duckweed.errors import BuildError, DuckweedError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.build.building import Building
    from duckweed.dockerfile.lint import Report

_FLAGS = (
    Flag("add-host", "", LIST, "Add a line to /etc/hosts (host:ip)"),
    Flag("allow", "", LIST, "Accepted for Docker's sake: nothing here needs an entitlement"),
    Flag("annotation", "", LIST, "Annotate the manifest (KEY=VALUE; index:, manifest-descriptor: before it)"),
    Flag("attest", "", LIST, "Accepted for Docker's sake when disabled"),
    Flag("build-arg", "", LIST, "Set a variable for ARG (NAME=VALUE, or NAME from the environment)"),
    Flag(
        "build-context",
        "",
        LIST,
        "Another context (NAME=PATH, docker-image://, oci-layout://, URL)",
    ),
    Flag("builder", "", STRING, "Accepted for Docker's sake; there is one builder"),
    Flag("cache-from", "", LIST, "Caches to take from (type=local,src=DIR, type=registry,ref=NAME or NAME)"),
    Flag(
        "cache-to", "", LIST, "Where to write the cache (type=local,dest=DIR, registry or inline; mode=max)"
    ),
    Flag("call", "", STRING, "What to do: build, check, outline or targets (,format=json)"),
    Flag("check", "", BOOL, "Look for mistakes in the Dockerfile and build nothing"),
    Flag("debug-shell", "", BOOL, "Open a shell in a RUN that failed"),
    Flag("file", "f", STRING, "Name of the Dockerfile (- is stdin)", completes="file"),
    Flag("iidfile", "", STRING, "Write the image's id to a file", completes="file"),
    Flag("isolation", "", STRING, "How to hold RUN apart: auto, userns or trap"),
    Flag("label", "", LIST, "Set a label of the image"),
    Flag("load", "", BOOL, "Keep the image in the store, which is what happens anyway"),
    Flag("metadata-file", "", STRING, "Write what came of the build to a file", completes="file"),
    Flag("network", "", STRING, "Network of RUN: default, none or host"),
    Flag("no-cache", "", BOOL, "Do every step anew"),
    Flag("no-cache-filter", "", LIST, "Do the steps of these stages anew"),
    Flag("output", "o", LIST, "Where the result goes (type=local|tar|oci|docker|image,dest=PATH)"),
    Flag("platform", "", LIST, "Platform of the image; several make an index"),
    Flag("progress", "", STRING, "How to show progress: auto, plain, tty, rawjson or quiet"),
    Flag("provenance", "", STRING, "Accepted for Docker's sake when false"),
    Flag("pull", "", BOOL, "Ask the registry for newer base images"),
    Flag("push", "", BOOL, "Push the image when it is built"),
    Flag("quiet", "q", BOOL, "Say nothing but the image's id"),
    Flag("sbom", "", STRING, "Accepted for Docker's sake when false"),
    Flag("secret", "", LIST, "A secret for RUN --mount (id=NAME,src=FILE or id=NAME,env=VARIABLE)"),
    Flag("shm-size", "", STRING, "Size of /dev/shm in RUN"),
    Flag("ssh", "", LIST, "An ssh agent or keys for RUN --mount (default or NAME=SOCKET|KEY)"),
    Flag("tag", "t", LIST, "Name of the image (NAME[:TAG])"),
    Flag("target", "", STRING, "Stage to build"),
    Flag("ulimit", "", "ulimit", "Limits of RUN"),
    *(
        Flag(name, short, kind, "Accepted for Docker's sake, without effect", hidden=True)
        for name, short, kind in (
            ("compress", "", BOOL),
            ("cpu-period", "", STRING),
            ("cpu-quota", "", STRING),
            ("cpu-shares", "c", STRING),
            ("cpuset-cpus", "", STRING),
            ("cpuset-mems", "", STRING),
            ("cgroup-parent", "", STRING),
            ("disable-content-trust", "", BOOL),
            ("force-rm", "", BOOL),
            ("memory", "m", STRING),
            ("memory-swap", "", STRING),
            ("rm", "", BOOL),
            ("squash", "", BOOL),
        )
    ),
)
_IGNORED = frozenset(flag.key for flag in _FLAGS if flag.hidden) | {"builder"}
_HERE = frozenset(("call", "check", "debug_shell", "progress", "quiet"))
_TAIL_LINES = 20


@verb(
    "build",
    "[OPTIONS] PATH | URL | -",
    flags=_FLAGS,
    at_least=1,
    at_most=1,
    completes="directory",
    failure_code=1,
)
def build(call: Call) -> int:
    """Build an image from a Dockerfile

    PATH is the directory that COPY and ADD take from; `-` reads a Dockerfile or a tar from stdin.
    """
    from duckweed.build.building import Building
    from duckweed.build.progress import Progress
    from duckweed.build.request import BuildRequest
    from duckweed.cli.build_progress import open_display

    given = {key: value for key, value in call.given.items() if key not in _IGNORED | _HERE}
    _refuse(call)
    request = BuildRequest(call.arguments[0], given)
    what, is_json = _method(call)
    display = open_display(
        "quiet" if call.get("quiet") or what != "build" else call.get("progress") or "auto"
    )
    _end_at_signals()
    building = Building(call.engine, request, Progress(display.show), sys.stdin.buffer)
    if what != "build":
        return _show_call(building, what, is_json)
    try:
        image = building.run(_debugger(display) if call.get("debug_shell") else None)
    except DuckweedError as error:
        display.close()
        _explain(building, error, debugged=bool(call.get("debug_shell")))
        raise
    except BaseException:
        display.close()
        raise
    display.close()
    if building.report is not None and not call.get("quiet"):
        _mention(building.report)
    if call.get("quiet") and image is not None:
        sys.stdout.write(f"{image.id}\n")
    return 0


def _end_at_signals() -> None:
    """What ends a job in a batch system or a terminal that goes ends a build as Ctrl-C does: cleanly."""
    import signal

    def end(number: int, _: object) -> None:
        # Once: what comes while things are put away must not break that off.
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, end)


def _method(call: Call) -> tuple[str, bool]:
    """What `--check` or `--call METHOD,format=json` asks for, and whether the answer is to be JSON."""
    what, *options = str("check" if call.get("check") else call.get("call") or "build").split(",")
    what = "check" if what == "lint" else what
    if what not in ("build", "check", "outline", "targets"):
        raise UsageError(
            f"unknown call `{what}`", "it is `build`, `check`, `outline` or `targets`", exit_code=1
        )
    for option in options:
        key, _, value = option.partition("=")
        if (key, value) not in (("format", "json"), ("format", "text")) and key != "ignorestatus":
            raise UsageError(f"unknown option `{option}` of --call", "write `format=json`", exit_code=1)
    return what, "format=json" in options


def _show_call(building: Building, what: str, is_json: bool) -> int:
    from duckweed.cli import build_calls

    if what == "check":
        report = building.check()
        sys.stdout.write(build_calls.findings_json(report) if is_json else build_calls.findings_text(report))
        return 1 if report.findings else 0
    document = building.describe(what)
    sys.stdout.write(build_calls.as_json(document) if is_json else build_calls.TEXTS[what](document))
    return 0


def _refuse(call: Call) -> None:
    if call.arguments[0] == "-" and call.get("file") == "-":
        raise Refused("invalid argument: can't use stdin for both build context and dockerfile")
    if call.arguments[0] == "-" and sys.stdin.isatty():
        raise Refused("`-` reads a Dockerfile or a tar from stdin, which is a terminal", "pipe one in")
    if call.get("squash"):
        raise Refused(
            "--squash is not supported",
            "copy the result into one layer: `FROM scratch`, `COPY --from=STAGE / /`",
        )
    for name in ("provenance", "sbom"):
        if str(call.get(name) or "false").lower() not in ("false", "0"):
            sys.stderr.write(f"note: --{name} is not supported; no attestation is made\n")
    if any("disabled=true" not in text for text in call.get("attest", ())):
        sys.stderr.write("note: --attest is not supported; no attestation is made\n")


def _debugger(display: Any) -> Any:
    def open_shell(step: Any, directory: str, code: int) -> None:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return
        display.pause()
        sys.stderr.write(f"the step failed with exit code {code}; this shell stands in it, leave it to end\n")
        step.shell(directory)
        display.resume()

    return open_shell


def _explain(building: Building, error: DuckweedError, *, debugged: bool) -> None:
    """The end of the failed step's output, and its lines of the Dockerfile."""
    out = []
    if building.failed is not None:
        vertex, _ = building.failed
        lines = _tail(vertex.tail)
        if lines:
            out += ["------", f" > {vertex.name}:", *lines, "------"]
    excerpt = error.excerpt if isinstance(error, BuildError) else ""
    if excerpt:
        out.append(excerpt)
    if out:
        text = "\n".join(out) + "\n"
        sys.stderr.write(text.encode("utf-8", "replace").decode())
    if (
        building.failed is not None
        and building.failed[1].keyword == "RUN"
        and not error.hint
        and not debugged
    ):
        error.hint = "`--debug-shell` opens a shell in the step that failed"


def _tail(pieces: list[tuple[float, bytes]]) -> list[str]:
    lines = []
    for seconds, data in pieces:
        for line in data.decode("utf-8", "replace").splitlines():
            lines.append(f"{seconds:.3f} {line}")
    return lines[-_TAIL_LINES:]


def _mention(report: Report) -> None:
    """What a build says of the checks' findings: a line for each."""
    if not report.findings:
        return
    count = len(report.findings)
    lines = [f"\n {count} warning{'s' if count > 1 else ''} found (use --check to expand):"]
    lines += [f" - {one.rule}: {one.message} (line {one.first})" for one in report.findings]
    sys.stderr.write("\n".join(lines) + "\n")
