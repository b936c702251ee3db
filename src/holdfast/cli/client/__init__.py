"""The commands of users, over any S3 endpoint: docs/commands.md."""

from holdfast.cli.client.buckets import bucket
from holdfast.cli.client.commands import cat, cp, du, get, ls, mirror, mv, put, rm, share, stat, tree
from holdfast.cli.client.completing import completion, install
from holdfast.cli.client.uploads import uploads

USER_COMMANDS = (ls, put, get, cat, cp, mv, rm, stat, du, tree, mirror, share, bucket, uploads, completion)

install()
