"""POST Object: a browser's form that uploads a file under a signed policy.

Rules. The form's head is read, its signature and its policy are checked, and only then the file is taken in. Fields
take the place of headers, and one that asks for what is not carried out answers 501, as a header would. Without a
policy the form is anonymous, and refused.
"""

from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from holdfast.core.limits import PART_MAX_BYTES
from holdfast.gateways.s3 import checksums, metadata, tagging, xml
from holdfast.gateways.s3.call import XML_TYPE, Answer, Call, Header, check_key, encode_key, quoted
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.form import Form, boundary_of
from holdfast.gateways.s3.policy import Policy, parse_policy
from holdfast.gateways.s3.sigv4 import Credentials, access_of, verify_form
from holdfast.objects.access import WRITE
from holdfast.objects.model import Digests, ObjectInfo, PutOptions
from holdfast.objects.tags import OBJECT_TAGS_MAX_COUNT, check_tags

_FILENAME = "${filename}"

# Fields whose header has another name.
_HEADERS: Mapping[str, str] = {"acl": "x-amz-acl"}

# Fields that say who signed, which `verify_form` has dealt with.
_SIGNATURE_FIELDS = frozenset(("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature"))


class FormCall(Call, frozen=True):
    """A form whose head was read, and whose signer allows what it asks for: the key is the form's, and its fields
    stand in place of headers."""

    access_key: str
    policy: Policy
    file: AsyncIterator[bytes]


def is_form(call: Call) -> bool:
    """Whether a request that is not signed is a form upload, whose signature is inside."""
    return (
        call.method == "POST"
        and call.bucket != ""
        and call.key == ""
        and not call.query
        and "authorization" not in call.headers
        and boundary_of(call.headers.get("content-type", "")) is not None
    )


async def open_form(call: Call, credentials: Credentials) -> FormCall:
    """Read the form's head, and check who signed it and what that allows. Raises S3Error, IncompleteBody."""
    boundary = boundary_of(call.headers.get("content-type", ""))
    assert boundary is not None
    form = Form(call.body.stream(), boundary)
    head = await form.head()
    fields = head.fields
    if "policy" not in fields:
        raise S3Error("AccessDenied", "Access Denied")
    access_key = verify_form(fields, credentials, call.settings.region)
    policy = parse_policy(fields["policy"])
    key = fields.get("key", "").replace(_FILENAME, head.filename)
    if not key:
        raise S3Error("InvalidArgument", "Bucket POST must contain a field named 'key'.")
    check_key(key)
    access = access_of(credentials, access_key)
    access.require(call.bucket, WRITE)
    if fields.get("bucket", call.bucket) != call.bucket:
        raise S3Error("AccessDenied", "The form names another bucket than the one that it was sent to.")
    policy.check({**fields, "bucket": call.bucket, "key": key}, call.now_ns / 1e9)
    # Headers are text of one character for each byte; fields are UTF-8.
    headers = {
        _HEADERS.get(name, name): value.encode().decode("latin-1")
        for name, value in fields.items()
        if name not in _SIGNATURE_FIELDS
    }
    return FormCall(
        store=call.store,
        settings=call.settings,
        method=call.method,
        bucket=call.bucket,
        key=key,
        query=call.query,
        headers=headers,
        body=call.body,
        now_ns=call.now_ns,
        access=access,
        access_key=access_key,
        policy=policy,
        file=form.file(),
    )


async def post_object(call: Call) -> Answer:
    """Store the file of a `FormCall`. The answer is what the form asks for: a redirection, or a status."""
    assert isinstance(call, FormCall)
    policy = call.policy
    checks = checksums.from_headers(call.headers, None)

    def check(digests: Digests) -> Mapping[str, str]:
        if digests.size < policy.size_min:
            raise S3Error("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
        return checks.check(digests)

    document = call.headers.get("tagging")
    tags = tagging.parse_document(document.encode("latin-1")) if document is not None else []
    options = PutOptions(
        headers=metadata.system_headers(call.headers),
        user_metadata=metadata.user_metadata(call.headers),
        digests=checks.digests,
        check=check,
        tags=check_tags(tags, OBJECT_TAGS_MAX_COUNT),
    )
    body = _limited(call.file, min(policy.size_max, PART_MAX_BYTES))
    return _answer(call, await call.store.put_object(call.bucket, call.key, body, options))


async def _limited(file: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in file:
        size += len(piece)
        if size > limit:
            raise S3Error(
                "EntityTooLarge",
                "Your proposed upload exceeds the maximum allowed size",
                details={"MaxSizeAllowed": str(limit)},
            )
        yield piece


def _answer(call: Call, info: ObjectInfo) -> Answer:
    location = f"/{call.bucket}/{encode_key(call.key)}"
    headers: list[Header] = [
        (b"etag", quoted(info.etag).encode("latin-1")),
        (b"location", location.encode("latin-1")),
        *metadata.version_header(call, info.version),
        *metadata.checksum_headers(info.checksums),
    ]
    target = call.headers.get("success_action_redirect") or call.headers.get("redirect")
    if target is not None and (url := _redirection(target, call, info)) is not None:
        headers[1] = (b"location", url)
        return Answer(303, headers)
    status = call.headers.get("success_action_status")
    if status != "201":
        return Answer(200 if status == "200" else 204, headers)
    parts = [
        xml.element("Location", location),
        xml.element("Bucket", call.bucket),
        xml.element("Key", call.key),
        xml.element("ETag", quoted(info.etag)),
    ]
    return Answer(201, [*headers, XML_TYPE], xml.document("PostResponse", parts, namespace=False))


def _redirection(target: str, call: Call, info: ObjectInfo) -> bytes | None:
    """Where to send the browser: the signer's URL with bucket, key and ETag added. None when it is no such URL."""
    if not target.isascii() or not target.isprintable() or " " in target:
        return None
    try:
        parts = urlsplit(target)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return None
    added = urlencode({"bucket": call.bucket, "key": call.key, "etag": quoted(info.etag)}, quote_via=quote)
    query = f"{parts.query}&{added}" if parts.query else added
    return urlunsplit(parts._replace(query=query)).encode("ascii")
