"""`holdfast bucket`: make, list, delete buckets, and switch versions on."""

from typing import Any

import click

from holdfast.cli.client.address import Remote, parse_remote
from holdfast.cli.client.completing import REMOTE
from holdfast.cli.client.options import YES
from holdfast.cli.client.session import Session, connected
from holdfast.cli.output import count
from holdfast.core.errors import InvalidRequest


@click.group()
def bucket() -> None:
    """Create, list and delete buckets, and keep versions in them."""


@bucket.command()
@click.argument("name", metavar="BUCKET")
@click.option("--versioning", is_flag=True, help="Keep every version from the beginning.")
@connected()
def create(session: Session, name: str, versioning: bool) -> None:
    """Create a bucket.

    \b
    Example:
      holdfast bucket create photos --versioning
    """
    remote = _bucket(name)
    connection = session.connect()
    place: dict[str, Any] = {}
    if connection.region not in ("us-east-1", "aws-global"):
        place = {"CreateBucketConfiguration": {"LocationConstraint": connection.region}}
    connection.call("create_bucket", remote.bucket, **place)
    if versioning:
        connection.call("put_bucket_versioning", remote.bucket, VersioningConfiguration={"Status": "Enabled"})
    session.reporter.result(f"Created {remote}", status="created", bucket=remote.bucket)


@bucket.command("list")
@connected()
def list_(session: Session) -> None:
    """List the buckets.

    \b
    Example:
      holdfast bucket list
    """
    from holdfast.cli.client.showing import list_buckets

    list_buckets(session.connect(), session.reporter)


@bucket.command()
@click.argument("name", metavar="BUCKET", type=REMOTE)
@click.option("--force", is_flag=True, help="With everything in it, all versions included.")
@YES
@connected(quiet=True)
def delete(session: Session, name: str, force: bool, yes: bool) -> None:
    """Delete a bucket, which must be empty.

    \b
    Example:
      holdfast bucket delete photos
    """
    from holdfast.cli.client import listing
    from holdfast.cli.client.deleting import ask
    from holdfast.cli.client.removing import Remover

    remote = _bucket(name)
    connection = session.connect()
    removed = 0
    if force:
        connection.call("head_bucket", remote.bucket)
        if not yes:
            ask(f"Delete {remote} with everything in it, all versions included?")
        with session.crew() as crew:
            remover = Remover(connection, crew, session.reporter, remote.bucket)
            removed = remover.remove(listing.versions(connection, remote.bucket), with_versions=True)
        if session.reporter.failures:
            return
    connection.call("delete_bucket", remote.bucket)
    with_these = f" with {count(removed, 'version')}" if removed else ""
    session.reporter.result(f"Deleted {remote}{with_these}", status="deleted", bucket=remote.bucket, versions=removed)


@bucket.command()
@click.argument("name", metavar="BUCKET", type=REMOTE)
@click.argument("wish", required=False, type=click.Choice(["on", "suspend"]), metavar="[on|suspend]")
@connected()
def versioning(session: Session, name: str, wish: str | None) -> None:
    """Tell whether a bucket keeps versions; switch it on or off.

    What is overwritten or deleted in a bucket with versions can be had back. Suspended, no new ones are kept.

    \b
    Example:
      holdfast bucket versioning photos on
    """
    remote = _bucket(name)
    connection = session.connect()
    if wish is not None:
        status = {"on": "Enabled", "suspend": "Suspended"}[wish]
        connection.call("put_bucket_versioning", remote.bucket, VersioningConfiguration={"Status": status})
    found = connection.call("get_bucket_versioning", remote.bucket).get("Status", "Off")
    said = {"Enabled": "keeps versions", "Suspended": "keeps no new versions (suspended)"}.get(
        found, "keeps no versions"
    )
    session.reporter.result(f"{remote} {said}", bucket=remote.bucket, versioning=found.lower())


def _bucket(name: str) -> Remote:
    remote = parse_remote(name)
    if remote.key:
        raise InvalidRequest(f"{name} is more than a bucket: write BUCKET or s3://BUCKET")
    return remote
