"""Verbs on buckets: create, head, delete, list, location, versioning."""

from holdfast.core.errors import AlreadyExists
from holdfast.core.limits import LIST_PAGE_MAX_COUNT
from holdfast.gateways.s3 import xml
from holdfast.gateways.s3.body import DOCUMENT_MAX_BYTES
from holdfast.gateways.s3.call import XML_TYPE, Answer, Call, integer, is_bucket_name, iso_date
from holdfast.gateways.s3.errors import S3Error, not_implemented
from holdfast.gateways.s3.settings import DEFAULT_REGION
from holdfast.objects.access import EITHER
from holdfast.objects.model import Bucket, Versioning

# S3: ListBuckets has pages of its own size.
_BUCKETS_PAGE_MAX_COUNT = 10_000


async def create_bucket(call: Call) -> Answer:
    """PUT /bucket. Again by its owner: as S3 answers, 200 in us-east-1 and BucketAlreadyOwnedByYou elsewhere."""
    if not is_bucket_name(call.bucket):
        raise S3Error("InvalidBucketName", "The specified bucket is not valid.", details={"BucketName": call.bucket})
    region = _location_constraint(await call.body.read(DOCUMENT_MAX_BYTES))
    location = call.settings.location
    if call.settings.region and region not in ("", location) and not (region == "EU" and location == "eu-west-1"):
        raise S3Error("InvalidLocationConstraint", "The specified location-constraint is not valid")
    try:
        await call.store.create_bucket(call.bucket, region=region)
    except AlreadyExists:
        if location != DEFAULT_REGION:
            raise
    return Answer(200, [(b"location", b"/" + call.bucket.encode("ascii"))])


def _location_constraint(document: bytes) -> str:
    if not document:
        return ""
    root = xml.parse(document, "CreateBucketConfiguration")
    for child in root.children:
        if child.name != "LocationConstraint":
            raise not_implemented(child.name)
    return (root.text_of("LocationConstraint") or "").strip()


async def head_bucket(call: Call) -> Answer:
    """HEAD /bucket."""
    await call.store.bucket(call.bucket)
    return Answer(200, [(b"x-amz-bucket-region", call.settings.location.encode("ascii"))])


async def delete_bucket(call: Call) -> Answer:
    """DELETE /bucket."""
    await call.store.delete_bucket(call.bucket)
    return Answer(204)


async def list_buckets(call: Call) -> Answer:
    """GET /. Buckets in which the signer may do nothing are not shown."""
    limit = integer(call, "max-buckets", _BUCKETS_PAGE_MAX_COUNT, _BUCKETS_PAGE_MAX_COUNT, minimum=1)
    prefix, token = call.query.get("prefix", ""), call.query.get("continuation-token", "")
    region = call.query.get("bucket-region")
    if region and region != call.settings.location:
        raise S3Error("InvalidArgument", f"Argument value {region} is not a valid AWS Region")
    buckets: list[Bucket] = []
    after = token
    while len(buckets) <= limit:
        page = await call.store.list_buckets(after=after, prefix=prefix, limit=LIST_PAGE_MAX_COUNT)
        buckets += [bucket for bucket in page if call.access.allows(bucket.name, EITHER)]
        if len(page) < LIST_PAGE_MAX_COUNT:
            break
        after = page[-1].name
    settings = call.settings
    parts = [
        "<Owner>",
        xml.element("ID", settings.owner_id),
        xml.element("DisplayName", settings.owner_name),
        "</Owner><Buckets>",
    ]
    for bucket in buckets[:limit]:
        parts += (
            "<Bucket>",
            xml.element("Name", bucket.name),
            xml.element("CreationDate", iso_date(bucket.created_ns)),
            xml.element("BucketRegion", settings.location),
            "</Bucket>",
        )
    parts.append("</Buckets>")
    if len(buckets) > limit:
        parts.append(xml.element("ContinuationToken", buckets[limit - 1].name))
    if prefix:
        parts.append(xml.element("Prefix", prefix))
    return Answer(200, [XML_TYPE], xml.document("ListAllMyBucketsResult", parts))


async def get_bucket_location(call: Call) -> Answer:
    """GET /bucket?location. us-east-1 is written as nothing, as S3 does."""
    await call.store.bucket(call.bucket)
    location = call.settings.location
    text = "" if location == DEFAULT_REGION else xml.escape(location)
    document = f'{xml.DECLARATION}<LocationConstraint xmlns="{xml.NAMESPACE}">{text}</LocationConstraint>'
    return Answer(200, [XML_TYPE], document.encode())


async def get_bucket_versioning(call: Call) -> Answer:
    """GET /bucket?versioning."""
    bucket = await call.store.bucket(call.bucket)
    status = {Versioning.ENABLED: "Enabled", Versioning.SUSPENDED: "Suspended"}.get(bucket.versioning)
    return Answer(
        200,
        [XML_TYPE],
        xml.document("VersioningConfiguration", [xml.element("Status", status)] if status else []),
    )


async def put_bucket_versioning(call: Call) -> Answer:
    """PUT /bucket?versioning."""
    root = xml.parse(await call.body.read(DOCUMENT_MAX_BYTES), "VersioningConfiguration")
    if (root.text_of("MfaDelete") or "Disabled").strip() != "Disabled":
        raise not_implemented("MfaDelete")
    versioning = {"Enabled": Versioning.ENABLED, "Suspended": Versioning.SUSPENDED}.get(
        (root.text_of("Status") or "").strip()
    )
    if versioning is None:
        raise S3Error(
            "IllegalVersioningConfigurationException",
            "The Versioning element must be specified",
        )
    await call.store.set_versioning(call.bucket, versioning)
    return Answer(200)
