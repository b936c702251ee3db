"""`share`: a link that is signed here, with no word to the server, and holds until its time is over.

Nobody can take a link back but by disabling the key that signed it.
"""

from datetime import timedelta

from holdfast.cli.client import listing
from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.nearest import missing
from holdfast.cli.client.reporting import Reporter, stamp
from holdfast.cli.settings import parse_duration
from holdfast.core.errors import InvalidRequest, NotFound
from holdfast.core.limits import PRESIGN_MAX_SECONDS


def make_link(
    connection: Connection, reporter: Reporter, remote: Remote, expires: str, *, for_upload: bool, version_id: str
) -> None:
    """Raises InvalidRequest, and NotFound for an object that could not be read through its link."""
    seconds = int(parse_duration(expires))
    if not 1 <= seconds <= PRESIGN_MAX_SECONDS:
        raise InvalidRequest(f"--expires {expires}: a link holds for 1 second to 7 days")
    if not remote.key or (remote.is_folder and not for_upload):
        raise InvalidRequest(f"{remote} is no object, and a link is to one")
    parameters = {"Bucket": remote.bucket, "Key": remote.key}
    if version_id:
        parameters["VersionId"] = version_id
    if not for_upload:
        try:
            listing.named(connection, remote, version_id)
        except NotFound as error:
            raise missing(connection, remote, error) from error
    link = connection.presign("put_object" if for_upload else "get_object", seconds, **parameters)
    until = connection.now() + timedelta(seconds=seconds)
    ends = connection.credentials_expire()
    if ends is not None and ends < until:
        reporter.note(f"The credentials end at {stamp(ends)}, and the link with them")
    reporter.result(link, url=link, method="PUT" if for_upload else "GET", expires=until)
