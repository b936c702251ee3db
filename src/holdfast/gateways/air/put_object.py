"""POST /put/{bucket}/{name}: a form whose field `file` becomes the next version of a name.

A bucket that is not there is made, and keeps versions; one that was made by other means stays as its owner set it.
Each version is kept with a CRC64NVME, for S3's clients to check what they read.
"""

import base64
from collections.abc import Mapping

from holdfast.core.errors import AlreadyExists
from holdfast.gateways.air.call import SUCCESS, Answer, Call, json_answer, speed
from holdfast.gateways.air.errors import AirError
from holdfast.gateways.air.form import Form, boundary_of
from holdfast.objects.errors import NoSuchBucket
from holdfast.objects.model import Digests, ObjectInfo, PutOptions, Versioning

FIELD = "file"

DEFAULT_TYPE = "application/octet-stream"

# What S3 gives to a body that came without any.
_CHECKSUM = "crc64nvme"

# Longer ones are no types; headers of an answer are bounded by clients.
_TYPE_MAX_CHARS = 256


async def put_object(call: Call) -> Answer:
    """The answer is given when the version is durable and every process reads it."""
    boundary = boundary_of(call.headers.get("content-type", ""))
    if boundary is None:
        raise AirError(415, f"the body must be multipart/form-data with a field `{FIELD}`")
    form = Form(call.body.stream(), boundary)
    content_type = await form.open(FIELD) or DEFAULT_TYPE
    if len(content_type) > _TYPE_MAX_CHARS or not content_type.isprintable():
        raise AirError(400, "the content type of the file is no content type")
    # Nobody who speaks to air compares an ETag, and MD5 would take longer than all else together.
    options = PutOptions(
        headers={"content-type": content_type},
        md5=False,
        digests=(_CHECKSUM,),
        check=_keep,
        size_hint=call.body.length or 0,
    )
    info = await _put(call, form, options)
    seconds = call.seconds()
    document = {"message": SUCCESS, "time_taken": seconds, "speed": speed(info.size, seconds)}
    return json_answer(200, document, ((b"version", b"%d" % info.number),))


async def _put(call: Call, form: Form, options: PutOptions) -> ObjectInfo:
    try:
        return await call.store.put_object(call.bucket, call.name, form.file(), options)
    except NoSuchBucket:
        # The store looks for the bucket before it asks for the first byte; a bucket that vanished later is an error.
        if form.started:
            raise
    try:
        await call.store.create_bucket(call.bucket, versioning=Versioning.ENABLED)
    except AlreadyExists:
        pass  # made by another request in this moment
    return await call.store.put_object(call.bucket, call.name, form.file(), options)


def _keep(digests: Digests) -> Mapping[str, str]:
    """The checksum to keep: there is nothing to compare it with."""
    return {_CHECKSUM: base64.b64encode(digests.values[_CHECKSUM]).decode("ascii")}
