"""A build from beginning to end: `engine.build` and `duckweed build` both come here."""

from __future__ import annotations

import os
import sys

from duckweed.build.annotations import Annotations
from duckweed.build.contexts import find_dockerfile, open_context
from duckweed.build.export import Output, export, keep_image, write_results
from duckweed.build.progress import Progress
from duckweed.build.request import BuildRequest
from duckweed.build.solver import Build
from duckweed.dockerfile.stages import parse
from duckweed.errors import BuildError, DuckweedError
from duckweed.oci.platform import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    from duckweed.build.contexts import Context
    from duckweed.build.progress import Vertex
    from duckweed.build.state import StageState
    from duckweed.dockerfile.instruction import Instruction
    from duckweed.dockerfile.lint import Report
    from duckweed.dockerfile.stages import Dockerfile
    from duckweed.engine import Engine
    from duckweed.oci.reference import Reference
    from duckweed.store.image import Image


class Building:
    """One call of build: reads what there is to read, solves, exports. `report` are the checks' findings."""

    def __init__(self, engine: Engine, request: BuildRequest, progress: Progress, stdin: BinaryIO) -> None:
        self._engine = engine
        self._request = request
        self._progress = progress
        self._stdin = stdin
        self.report: Report | None = None
        self.failed: tuple[Vertex, Instruction] | None = None
        self.outputs = [Output.parse(text) for text in request.output]
        if request.push:
            self.outputs.append(Output("registry", "", {}))
        for options in [{}, *(output.options for output in self.outputs)]:
            annotations = Annotations.parse(request.annotation, options)
            if len(request.platforms) < 2:
                annotations.check_single()

    def run(self, debugger: Callable[..., None] | None = None) -> Image | None:
        """Builds; the image when one is kept in the store. Raises BuildError and what steps raise."""
        self._engine.layout.ensure()
        self._engine.repair()
        context, dockerfile = self._read()
        try:
            return self._build(context, dockerfile, debugger)
        finally:
            context.close()

    def check(self) -> Report:
        """The findings of `--check`, without building."""
        context, dockerfile = self._read()
        try:
            return self._lint(context, dockerfile)
        finally:
            context.close()

    def describe(self, call: str) -> dict[str, Any]:
        """The document of `--call targets` or `--call outline`, without building."""
        from duckweed.build.solver import needed_stages
        from duckweed.dockerfile import outline
        from duckweed.dockerfile.scope import global_scope, platform_args

        context, dockerfile = self._read()
        context.close()
        if call == "targets":
            return outline.targets(dockerfile)
        request = self._request
        target = dockerfile.target(request.target)
        predefined = platform_args(Platform.host(), self._platform(), request.target, request.build_args)
        scope = global_scope(dockerfile, predefined, request.build_args)
        stages = needed_stages(dockerfile, target, scope, request.contexts)
        return outline.outline(dockerfile, target, stages, scope, request.build_args)

    def _read(self) -> tuple[Context, Dockerfile]:
        """The context and the Dockerfile, wherever each comes from."""
        request = self._request
        content = request.dockerfile
        if content is None and request.file == "-":
            content = self._stdin.read()
        context, came = open_context(self._engine.layout, request.context, self._stdin)
        try:
            path: str | None = None
            name = "Dockerfile"
            if content is None:
                content = came
            vertex = self._progress.begin("[internal] load build definition from Dockerfile", internal=True)
            if content is None:
                path, name = find_dockerfile(context, request.file, os.getcwd())
                content = _read_file(path)
            vertex.name = f"[internal] load build definition from {name}"
            vertex.status(f"transferring dockerfile: {len(content)}B done")
            vertex.done()
            vertex = self._progress.begin("[internal] load .dockerignore", internal=True)
            context.read_ignore(path)
            vertex.done()
            return context, parse(content, name)
        except BaseException:
            context.close()
            raise

    def _platform(self) -> Platform:
        return self._request.platforms[0] if self._request.platforms else Platform.host()

    def _lint(self, context: Context, dockerfile: Dockerfile) -> Report:
        from duckweed.dockerfile.lint import Surroundings, check
        from duckweed.dockerfile.scope import platform_args

        request = self._request
        predefined = platform_args(Platform.host(), self._platform(), request.target, request.build_args)
        surroundings = Surroundings(predefined, request.build_args, self._base_environment, context.matcher)
        return check(dockerfile, surroundings)

    def _base_environment(self, name: str) -> dict[str, str] | None:
        try:
            image = self._engine.images.get(name)
        except DuckweedError:
            return None
        pairs = (entry.partition("=") for entry in image.run_config.get("Env") or ())
        return {"PATH": "", **{key: value for key, _, value in pairs}}

    def _build(
        self, context: Context, dockerfile: Dockerfile, debugger: Callable[..., None] | None
    ) -> Image | None:
        self.report = self._lint(context, dockerfile)
        builds: list[Build] = []
        solved: list[tuple[Build, StageState]] = []
        platforms = list(dict.fromkeys(self._request.platforms)) or [Platform.host()]
        try:
            # One after the other: what they share is done once, and in the cache for the next.
            for platform in platforms:
                build = Build(self._engine, self._request, dockerfile, context, self._progress, platform)
                build.debugger = debugger
                build.label = f"{platform} " if len(platforms) > 1 else ""
                builds.append(build)
                solved.append((build, build.solve()))
            self._add_misfits(builds)
            self._refuse_findings()
            image = self._export(*solved[0]) if len(solved) == 1 else self._export_several(solved)
            if self._request.cache_to:
                from duckweed.build.cache_export import export_caches

                export_caches(solved, self._request.cache_to, self._progress)
            return image
        finally:
            for build in builds:
                self.failed = self.failed or build.failed
                build.close()

    def _export_several(self, solved: list[tuple[Build, StageState]]) -> Image | None:
        from duckweed.build.several import SeveralPlatforms

        vertex = self._progress.begin("exporting to image")
        try:
            image = SeveralPlatforms(solved, self._names()).export(self.outputs, vertex)
        except DuckweedError as error:
            vertex.fail(error.message)
            raise
        if image is not None:
            vertex.status(f"writing image {image.id} done")
        vertex.done()
        return image

    def _add_misfits(self, builds: list[Build]) -> None:
        """The one rule that only a build can check."""
        for one, name, platform, wanted in (misfit for build in builds for misfit in build.misfits):
            message = f'Base image {name} is for platform "{platform}", expected "{wanted}" for current build'
            if self.report is not None:
                self.report.add("InvalidBaseImagePlatform", message, one)

    def _refuse_findings(self) -> None:
        report = self.report
        if report is not None and report.choice.is_error and report.findings:
            names = ", ".join(sorted({finding.rule for finding in report.findings}))
            raise BuildError(f"lint violation found for rules: {names}")

    def _export(self, build: Build, state: StageState) -> Image | None:
        if self.outputs and all(output.is_files for output in self.outputs):
            for output in self.outputs:
                vertex = self._progress.begin("exporting to client" if output.kind != "cacheonly" else "done")
                export(build, state, output, None, vertex)
                vertex.done()
            write_results(build, None)
            return None
        vertex = self._progress.begin("exporting to image")
        try:
            image = self._keep(build, state, vertex)
            for output in self.outputs:
                export(build, state, output, image, vertex)
        except DuckweedError as error:
            vertex.fail(error.message)
            raise
        vertex.done()
        write_results(build, image)
        return image

    def _names(self) -> list[Reference]:
        """The names of `--tag` and of outputs."""
        names = list(self._request.tags)
        for output in self.outputs:
            if output.kind in ("image", "registry") and output.options.get("name"):
                from duckweed.oci.reference import Reference

                names += [Reference.parse(text) for text in output.options["name"].split(",")]
        return names

    def _keep(self, build: Build, state: StageState, vertex: Vertex) -> Image:
        names = self._names()
        vertex.status("exporting layers done")
        options = next((one.options for one in self.outputs if not one.is_files), {})
        annotations = Annotations.parse(self._request.annotation, options)
        image = keep_image(build, state, names, annotations.at("manifest", build.platform))
        vertex.status(f"writing image {image.id} done")
        for name in names:
            vertex.status(f"naming to {name} done")
        pushes = [output for output in self.outputs if output.wants_push]
        if pushes:
            self._push(names, pushes[-1].compression, vertex)
        return image

    def _push(self, names: list[Reference], compression: str, vertex: Vertex) -> None:
        if not names:
            raise BuildError("tag is needed when pushing to registry", "name the image with `-t`")
        packing = "gzip" if compression == "gzip" else None
        for name in names:
            self._engine.images.push(name.familiar, compression_format=packing)
            vertex.status(f"pushing {name} done")


def _read_file(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BuildError(f"cannot read `{path}`: {(error.strerror or '').lower()}") from None


def build_image(engine: Engine, context: str, options: dict[str, Any]) -> Image | None:
    """See `Engine.build`."""
    show = options.pop("progress", None)
    progress = Progress(show) if show is not None else Progress()
    return Building(engine, BuildRequest(context, options), progress, sys.stdin.buffer).run()
