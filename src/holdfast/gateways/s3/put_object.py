"""PutObject."""

from holdfast.core.ids import Buffer
from holdfast.core.limits import PART_MAX_BYTES
from holdfast.gateways.s3 import checksums, metadata, tagging
from holdfast.gateways.s3.body import WHOLE_BODY_MAX_BYTES
from holdfast.gateways.s3.call import Answer, Call, Header, quoted
from holdfast.gateways.s3.checksums import BodyChecks
from holdfast.gateways.s3.errors import S3Error
from holdfast.objects.model import Body, PutOptions


async def put_object(call: Call) -> Answer:
    """PUT /bucket/key. Nothing becomes visible before the last byte and every announced hash were checked."""
    length = body_length(call)
    conditions = metadata.write_conditions(call)
    headers = metadata.system_headers(call.headers)
    user_metadata = metadata.user_metadata(call.headers)
    body, checks = await open_body(call, length)
    info = await call.store.put_object(
        call.bucket,
        call.key,
        body,
        PutOptions(
            headers=headers,
            user_metadata=user_metadata,
            conditions=conditions,
            digests=checks.digests,
            check=checks.check,
            size=length,
            size_max=PART_MAX_BYTES,
            tags=tagging.from_header(call.headers),
        ),
    )
    answer: list[Header] = [(b"etag", quoted(info.etag).encode("latin-1"))]
    answer += metadata.version_header(call, info.version)
    answer += metadata.checksum_headers(info.checksums)
    return Answer(200, answer)


def body_length(call: Call) -> int | None:
    """The length of the data to come; None when HTTP's chunked coding tells its end. S3 takes at most 5 GiB."""
    length = call.body.length
    if length is None:
        if "transfer-encoding" in call.headers:
            return None
        raise S3Error("MissingContentLength", "You must provide the Content-Length HTTP header.")
    if length > PART_MAX_BYTES:
        raise S3Error(
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
            details={"ProposedSize": str(length), "MaxSizeAllowed": str(PART_MAX_BYTES)},
        )
    return length


async def open_body(call: Call, length: int | None) -> tuple[Body, BodyChecks]:
    """The data, whole when it is small, and what it must hash to."""
    whole = length is not None and length <= WHOLE_BODY_MAX_BYTES
    checks = checksums.from_headers(call.headers, call.body.decoder, None if whole else call.body.sha256)
    data: Buffer
    if whole:
        data = await call.body.read(WHOLE_BODY_MAX_BYTES)
        return data, checks
    return call.body.stream(), checks
