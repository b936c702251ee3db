"""`ls`, `tree`, `du` and `stat`: what there is, in columns for people or an object a line."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from holdfast.cli.client import listing
from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.digests import etag_of
from holdfast.cli.client.listing import Begun, Entry, Folder
from holdfast.cli.client.nearest import missing
from holdfast.cli.client.reporting import Reporter, shown, stamp
from holdfast.cli.client.unfinished import Known
from holdfast.cli.output import count, size
from holdfast.core.errors import InvalidRequest, NotFound

# Wide enough for "1,023 KiB" and "999 MiB".
_SIZE_CHARS = 9
_STAMP_CHARS = len("2026-01-01 00:00:00")

_CHECKSUMS = ("ChecksumCRC64NVME", "ChecksumCRC32C", "ChecksumCRC32", "ChecksumSHA256", "ChecksumSHA1")
_HEADERS = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "StorageClass")


@dataclass(frozen=True, slots=True)
class Units:
    """How sizes are written."""

    exact: bool = False

    def __call__(self, number: int) -> str:
        return f"{number:,}" if self.exact else size(number)


def list_buckets(connection: Connection, reporter: Reporter) -> None:
    for page in connection.pages("list_buckets"):
        for bucket in page.get("Buckets", ()):
            name, created = bucket["Name"], bucket["CreationDate"]
            reporter.result(f"{stamp(created)}  {Remote(name)}", kind="bucket", name=name, created=created)


def list_objects(
    connection: Connection, reporter: Reporter, remote: Remote, units: Units, *, recursive: bool, versions: bool
) -> None:
    """What begins with the given name; names are shown without the folder that was asked for."""
    start = remote.key.rpartition("/")[0]
    hidden = len(start) + 1 if start else 0
    entries: Iterator[Entry | Folder]
    if versions:
        entries = listing.versions(connection, remote.bucket, remote.key)
    elif recursive:
        entries = listing.objects(connection, remote.bucket, remote.key)
    else:
        entries = listing.level(connection, remote.bucket, remote.key)
    found = False
    for entry in entries:
        found = True
        if isinstance(entry, Folder):
            blank = " " * (_STAMP_CHARS + 2 + _SIZE_CHARS)
            reporter.result(f"{blank}  {shown(entry.prefix[hidden:])}", kind="folder", key=entry.prefix)
        else:
            _show_entry(reporter, entry, hidden, units, with_version=versions)
    if not found and remote.key:
        raise missing(connection, remote, NotFound(f"there is nothing that begins with {remote}"))


def _show_entry(reporter: Reporter, entry: Entry, hidden: int, units: Units, *, with_version: bool) -> None:
    length = "deleted" if entry.is_marker else units(entry.size)
    line = f"{stamp(entry.modified)}  {length:>{_SIZE_CHARS}}  {shown(entry.key[hidden:])}"
    record: dict[str, Any] = {}
    if with_version:
        line += f"  {entry.version_id}{'  (latest)' if entry.is_latest else ''}"
        record = {"version_id": entry.version_id, "latest": entry.is_latest, "delete_marker": entry.is_marker}
    reporter.result(
        line, kind="object", key=entry.key, bytes=entry.size, modified=entry.modified, etag=entry.etag, **record
    )


def show_upload(reporter: Reporter, bucket: str, begun: Begun, arrived: int, note: Known | None, units: Units) -> None:
    """An unfinished upload; `note` is this machine's of it."""
    line = f"{stamp(begun.started)}  {units(arrived):>{_SIZE_CHARS}}  {shown(begun.key)}  {begun.upload_id}"
    record: dict[str, Any] = {}
    if note is not None:
        doing = "being sent now" if note.is_locked else "the same command goes on"
        line += f"  (of {units(note.begun.size)} from {shown(note.begun.source)}: {doing})"
        record = {"source": note.begun.source, "of_bytes": note.begun.size, "sending": note.is_locked}
    reporter.result(
        line, kind="upload", name=str(Remote(bucket, begun.key)), key=begun.key, upload_id=begun.upload_id,
        started=begun.started, bytes=arrived, **record,
    )  # fmt: skip


def show_usage(
    connection: Connection, reporter: Reporter, remote: Remote, units: Units, *, depth: int, versions: bool
) -> None:
    """Bytes and objects of a folder, and of those inside of it down to `depth`."""
    list_all = listing.versions if versions else listing.objects
    totals: dict[str, list[int]] = {}
    everything = [0, 0]
    for entry in list_all(connection, remote.bucket, remote.prefix):
        below = entry.key[len(remote.prefix) :].split("/")[:-1]
        for level in range(1, min(depth, len(below)) + 1):
            _add(totals.setdefault("/".join(below[:level]) + "/", [0, 0]), entry)
        _add(everything, entry)
    if not everything[1] and remote.key:
        head = _head(connection, remote, "")
        everything = [int(head["ContentLength"]), 1]
    for name in sorted(totals):
        _show_total(reporter, str(remote.at(name)), totals[name], units)
    _show_total(reporter, str(remote), everything, units)


def _add(total: list[int], entry: Entry) -> None:
    total[0] += entry.size
    total[1] += 1


def _show_total(reporter: Reporter, name: str, total: list[int], units: Units) -> None:
    length, objects = total
    line = f"{units(length):>{_SIZE_CHARS}}  {count(objects, 'object'):>16}  {shown(name)}"
    reporter.result(line, kind="usage", name=name, bytes=length, objects=objects)


def show_tree(connection: Connection, reporter: Reporter, remote: Remote, units: Units, *, depth: int) -> None:
    """Folders and objects as a tree. Folders deeper than `depth` (0: none) are told by their count and size."""
    if reporter.as_json:
        raise InvalidRequest("a tree is for people: `ls --recursive --json` has the same for programs")
    root = _Branch()
    entries = 0
    for entry in listing.inside(connection, remote):
        root.add(entry.key[len(remote.prefix) :].split("/"), entry.size)
        entries += 1
    if not entries and remote.key:
        raise missing(connection, remote, NotFound(f"there is nothing in {remote}"))
    reporter.result(shown(str(remote)))
    for line in root.lines(units, depth or -1):
        reporter.result(line)
    folders = root.folders()
    reporter.result("")
    reporter.result(f"{count(folders, 'folder')}, {count(root.objects, 'object')}, {units(root.bytes)}")


class _Branch:
    """A folder of the tree. In the order in which the server lists, so that it holds no more than it shows."""

    def __init__(self) -> None:
        self.children: dict[str, _Branch | int] = {}
        self.objects = 0
        self.bytes = 0

    def add(self, parts: list[str], length: int) -> None:
        self.objects += 1
        self.bytes += length
        name, *rest = parts
        if not rest:
            if name:
                self.children[name] = length
            return
        branch = self.children.setdefault(name + "/", _Branch())
        assert isinstance(branch, _Branch)
        branch.add(rest, length)

    def folders(self) -> int:
        return sum(1 + child.folders() for child in self.children.values() if isinstance(child, _Branch))

    def lines(self, units: Units, depth: int, indent: str = "") -> Iterator[str]:
        last = len(self.children) - 1
        for number, (name, child) in enumerate(self.children.items()):
            fork, rail = ("└── ", "    ") if number == last else ("├── ", "│   ")
            if isinstance(child, int):
                yield f"{indent}{fork}{shown(name)}  ({units(child)})"
            elif depth == 1:
                yield f"{indent}{fork}{shown(name)}  ({count(child.objects, 'object')}, {units(child.bytes)})"
            else:
                yield f"{indent}{fork}{shown(name)}"
                yield from child.lines(units, depth - 1, indent + rail)


def show_details(connection: Connection, reporter: Reporter, remote: Remote, version_id: str) -> None:
    """Everything that is known of an object, or of a bucket."""
    if not remote.key:
        _show_bucket(connection, reporter, remote)
        return
    head = _head(connection, remote, version_id)
    record: dict[str, Any] = {
        "name": str(remote),
        "bytes": int(head["ContentLength"]),
        "modified": head["LastModified"],
        "etag": etag_of(head),
        "content_type": head.get("ContentType", ""),
    }
    rows = [
        ("Name", shown(str(remote))),
        ("Size", f"{size(record['bytes'])} ({record['bytes']:,} bytes)"),
        ("Modified", stamp(head["LastModified"])),
        ("ETag", record["etag"]),
        ("Type", record["content_type"]),
    ]
    if head.get("VersionId"):
        record["version_id"] = head["VersionId"]
        rows.append(("Version", head["VersionId"]))
    for name in _CHECKSUMS:
        if name in head:
            record[name] = head[name]
            rows.append((name.removeprefix("Checksum"), f"{head[name]} ({head.get('ChecksumType', 'FULL_OBJECT')})"))
    for name in _HEADERS:
        if head.get(name):
            record[name] = head[name]
            rows.append((name, shown(head[name])))
    record["metadata"] = head.get("Metadata", {})
    rows += [(f"Metadata {shown(name)}", shown(value)) for name, value in sorted(record["metadata"].items())]
    reporter.result(_columns(rows), kind="object", **record)


def _show_bucket(connection: Connection, reporter: Reporter, remote: Remote) -> None:
    connection.call("head_bucket", remote.bucket)
    versioning = connection.call("get_bucket_versioning", remote.bucket).get("Status", "Off")
    region = connection.call("get_bucket_location", remote.bucket).get("LocationConstraint") or "us-east-1"
    rows = [("Name", str(remote)), ("Region", region), ("Versioning", versioning), ("Endpoint", connection.endpoint)]
    reporter.result(
        _columns(rows), kind="bucket", name=remote.bucket, region=region, versioning=versioning.lower(),
        endpoint=connection.endpoint,
    )  # fmt: skip


def _columns(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _head(connection: Connection, remote: Remote, version_id: str) -> dict[str, Any]:
    try:
        return listing.named(connection, remote, version_id)
    except NotFound as error:
        raise missing(connection, remote, error) from error
