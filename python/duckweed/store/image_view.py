"""Docker's views of an image: `image inspect`, `images`, `history`."""

from __future__ import annotations

from duckweed.errors import DuckweedError
from duckweed.oci import timestamp
from duckweed.oci.reference import Reference
from duckweed.store import scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from duckweed.store.image import Image
    from duckweed.store.images import ImageStore


def layer_sizes(store: ImageStore, image: Image) -> list[int]:
    """The bytes of each layer's tar, bottom first; 0 where that is not known any more."""
    sizes = []
    for chain_id in image.chain_ids:
        size = (store.layers.any_record(chain_id, store.flavour.name) or {}).get("size")
        sizes.append(size if isinstance(size, int) else 0)
    return sizes


def repo_digests(store: ImageStore, image: Image) -> list[str]:
    """`name@digest` for each name of the image whose manifest came with it; where a registry has called the
    image something, that.
    """
    named = [record for record in store.records.all_named() if record["config"] == image.id]
    remote = {Reference.parse(r["reference"]).familiar for r in named if "@" in r["reference"]}
    known = {text.partition("@")[0] for text in remote}
    for record in named:
        name = Reference.parse(record["reference"]).familiar_name
        if record.get("original") and name not in known:
            remote.add(f"{name}@{record['manifest']}")
    return sorted(remote)


def created(image: Image) -> str:
    """When the image was made; Docker's zero time when it does not say."""
    return image.config.get("created") or timestamp.NEVER


def inspect(store: ImageStore, image: Image) -> dict[str, Any]:
    """The dict of `docker image inspect`."""
    config, run_config = image.config, image.run_config
    history = config.get("history") or []
    record = store.records.image(image.id) or {}
    tags = image.tags
    view = {
        "Id": image.id,
        "RepoTags": tags,
        "RepoDigests": repo_digests(store, image),
        "Parent": "",
        "Comment": (history[-1].get("comment") or "") if history else "",
        "Created": created(image),
        "DockerVersion": config.get("docker_version") or "",
        "Author": config.get("author") or "",
        "Config": _docker_config(run_config),
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": sum(layer_sizes(store, image)),
        "GraphDriver": {"Name": "overlay", "Data": _graph_data(image)},
        "RootFS": {"Type": "layers", "Layers": image.diff_ids},
        "Metadata": {"LastTagTime": _last_tag_time(store, image, record)},
        "Duckweed": {
            "Store": image.store_root,
            "ReadOnly": image.store_root != store.layout.root,
        },
    }
    if config.get("variant"):
        view["Variant"] = config["variant"]
    return view


def _graph_data(image: Image) -> dict[str, str]:
    lower = image.lower
    data = {"UpperDir": lower[0]} if lower else {}
    if lower[1:]:
        data["LowerDir"] = ":".join(lower[1:])
    return data


def _last_tag_time(store: ImageStore, image: Image, record: dict[str, Any]) -> str:
    times = [tag.get("created_at") or "" for tag in store.records.tags_of(image.id)]
    return max([*times, record.get("created_at") or timestamp.NEVER])


def _docker_config(run_config: dict[str, Any]) -> dict[str, Any]:
    """OCI's config with the members that Docker always shows."""
    view: dict[str, Any] = {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": [],
        "Cmd": None,
        "Image": "",
        "Volumes": None,
        "WorkingDir": "",
        "Entrypoint": None,
        "OnBuild": None,
        "Labels": None,
    }
    view.update({key: value for key, value in run_config.items() if value is not None})
    return view


def summary(store: ImageStore, image: Image) -> dict[str, Any]:
    """The dict of docker's /images/json."""
    using = sum(1 for record in container_records(store) if record.get("ImageID") == image.id)
    return {**summary_of(store, image), "Containers": using}


def summary_of(store: ImageStore, image: Image) -> dict[str, Any]:
    """That dict without counting containers (-1, as Docker says of what it did not count)."""
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": image.tags,
        "RepoDigests": repo_digests(store, image),
        "Created": int(timestamp.to_unix(created(image)) or 0),
        "Size": sum(layer_sizes(store, image)),
        "SharedSize": -1,
        "Labels": image.run_config.get("Labels") or {},
        "Containers": -1,
    }


def container_records(store: ImageStore) -> list[dict[str, Any]]:
    """container.json of every container."""
    layout = store.layout
    paths = (
        f"{layout.containers}/{name}/container.json" for name in scratch.list_directory(layout.containers)
    )
    records = []
    for path in paths:
        try:
            record = scratch.read_json(path)
        except DuckweedError:
            continue
        if record is not None:
            records.append(record)
    return records


def history(store: ImageStore, image: Image) -> list[dict[str, Any]]:
    """Docker's history dicts, newest first. Entries beyond the config's own history are made up for layers
    it forgot.
    """
    sizes = layer_sizes(store, image)
    steps: list[dict[str, Any]] = list(image.config.get("history") or [])
    told = sum(1 for step in steps if not step.get("empty_layer"))
    steps += [{"created": created(image)}] * max(0, len(sizes) - told)
    rows = []
    position = 0
    for step in steps:
        size = 0
        if not step.get("empty_layer") and position < len(sizes):
            size = sizes[position]
            position += 1
        rows.append(
            {
                "Id": "<missing>",
                "Created": int(timestamp.to_unix(step.get("created")) or 0),
                "CreatedBy": _text(step.get("created_by")),
                "Tags": None,
                "Size": size,
                "Comment": _text(step.get("comment")),
            }
        )
    rows.reverse()
    if rows:
        rows[0].update(Id=image.id, Tags=image.tags or None)
    return rows


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
