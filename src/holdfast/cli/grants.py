"""`holdfast key`: S3 keys in the operator's hands.

A secret is printed by `create`, once, and by nothing else; it is never taken from the command line.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from holdfast.cli.accounts import Account
from holdfast.cli.opening import OpenStore
from holdfast.cli.output import Output, count
from holdfast.objects.access import EVERY_BUCKET, NOTHING, READ, WRITE, Permissions, letters
from holdfast.objects.names import check_bucket_name

ACTS_WITHIN = "running servers follow within 5 s"


def parse_grants(read: Iterable[str], write: Iterable[str]) -> dict[str, Permissions]:
    """Grants by bucket, of names as they were given. Raises InvalidName."""
    grants: dict[str, Permissions] = {}
    for names, permissions in ((read, READ), (write, WRITE)):
        for name in names:
            _check(name)
            grants[name] = grants.get(name, NOTHING) | permissions
    return grants


async def create(opened: OpenStore, output: Output, label: str, grants: Mapping[str, Permissions]) -> bool:
    """Make a key pair and print it."""
    await _warn_of_unknown(opened, output, grants)
    access_key, secret = await opened.accounts.create(label, grants)
    if not output.as_json:
        output.say(f"access key  {access_key}")
        output.say(f"secret key  {secret}")
    output.say(f"{in_words(grants)}; the secret is not shown again")
    output.document({"access_key": access_key, "secret_key": secret, "label": label, "grants": _plain(grants)})
    return True


async def show(opened: OpenStore, output: Output) -> bool:
    """Every key and what it may do."""
    accounts = await opened.accounts.all()
    output.table(
        ("ACCESS KEY", "STATE", "MAY", "MADE", "LABEL"),
        [
            (
                account.access_key,
                "enabled" if account.enabled else "disabled",
                "everything (root)" if account.access.root else in_words(account.access.grants),
                _when(account.created_ns),
                account.label,
            )
            for account in accounts
        ],
    )
    output.document({"keys": [_document(account) for account in accounts]})
    return True


async def enable(opened: OpenStore, output: Output, access_key: str, *, enabled: bool) -> bool:
    """Let a key sign, or no longer."""
    await opened.accounts.enable(access_key, enabled=enabled)
    state = "enabled" if enabled else "disabled"
    output.say(f"{access_key} is {state}; {ACTS_WITHIN}")
    output.document({"access_key": access_key, "enabled": enabled})
    return True


async def delete(opened: OpenStore, output: Output, access_key: str) -> bool:
    """Remove a key for good."""
    await opened.accounts.delete(access_key)
    output.say(f"{access_key} is deleted; {ACTS_WITHIN}")
    output.document({"access_key": access_key})
    return True


async def grant(
    opened: OpenStore, output: Output, access_key: str, granted: Mapping[str, Permissions], revoked: Iterable[str]
) -> bool:
    """Take grants away, then add some."""
    for name in revoked:
        _check(name)
    await _warn_of_unknown(opened, output, granted)
    grants = await opened.accounts.grant(access_key, granted, frozenset(revoked))
    output.say(f"{access_key}: {in_words(grants)}; {ACTS_WITHIN}")
    output.document({"access_key": access_key, "grants": _plain(grants)})
    return True


def in_words(grants: Mapping[str, Permissions]) -> str:
    """`photos: rw, every bucket: r`."""
    named = [
        f"{'every bucket' if bucket == EVERY_BUCKET else bucket}: {letters(permissions)}"
        for bucket, permissions in sorted(grants.items())
    ]
    return ", ".join(named) if named else "no grants"


async def _warn_of_unknown(opened: OpenStore, output: Output, grants: Mapping[str, Permissions]) -> None:
    """A grant may come before its bucket, but more often its name is misspelled."""
    names = {name for name in grants if name != EVERY_BUCKET}
    missing = [name for name in sorted(names) if not await _is_there(opened, name)]
    if missing:
        output.say(f"no such bucket yet: {', '.join(missing)} ({count(len(missing), 'grant')} for when there is)")


async def _is_there(opened: OpenStore, name: str) -> bool:
    return any(bucket.name == name for bucket in await opened.store.list_buckets(prefix=name, limit=1))


def _check(name: str) -> None:
    """Raises InvalidName."""
    if name != EVERY_BUCKET:
        check_bucket_name(name)


def _plain(grants: Mapping[str, Permissions]) -> dict[str, str]:
    return {bucket: letters(permissions) for bucket, permissions in sorted(grants.items())}


def _document(account: Account) -> dict[str, Any]:
    return {
        "access_key": account.access_key,
        "root": account.access.root,
        "enabled": account.enabled,
        "grants": _plain(account.access.grants),
        "label": account.label,
        "created": _when(account.created_ns),
    }


def _when(created_ns: int) -> str:
    return datetime.fromtimestamp(created_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if created_ns else ""
