"""`sos`: the commands. Each is a thin front over a module of its own, which is imported when it runs."""

import sys
from typing import Any

import click

from holdfast import __version__
from holdfast.cli.sos.flags import GoCommand, flag, switch
from holdfast.core.errors import HoldfastError


class _Commands(click.Group):
    """The original's names (`blob_server`) beside the later ones; errors that we raise on purpose become one line."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name.replace("_", "-"))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HoldfastError as error:
            raise click.ClickException(str(error)) from error


_HELP = {"help_option_names": ["-h", "-help", "--help"], "max_content_width": 120}


@click.group(cls=_Commands, context_settings=_HELP)
@click.version_option(__version__, prog_name="sos")
def main() -> None:
    """The Simple Object Storage: upload files, fetch them by their id."""


@main.command("blob-server", cls=GoCommand, context_settings=_HELP)
@flag("host", default="127.0.0.1", show_default=True, help="The IP to listen upon.")
@flag("port", default=3001, show_default=True, help="The port to bind upon.")
@flag(
    "store",
    default="data",
    envvar="SOS_STORE",
    show_default=True,
    show_envvar=True,
    help="Where blobs are kept: a directory, several with commas between, or the URL of a Redis (redis://), "
    "PostgreSQL (postgresql://) or memcached (memcached://).",
)
@flag("workers", type=int, help="Worker processes; one for each core unless set.")
@flag("secret-file", help="A file with the secret that API servers and `replicate` must know.")
def blob_server(host: str, port: int, store: str, workers: int | None, secret_file: str | None) -> None:
    """Launch a blob-server to handle the back-end storage."""
    from holdfast.cli.sos.blob_server import run

    run(host, port, store, workers, secret_file, click.echo)


@main.command("api-server", cls=GoCommand, context_settings=_HELP)
@flag("api-host", default="0.0.0.0", show_default=True, help="The IP to listen upon.")  # noqa: S104  the original's
@flag("upload-port", default=9991, show_default=True, help="The port to bind upon for uploading objects.")
@flag("download-port", default=9992, show_default=True, help="The port to bind upon for downloading objects.")
@flag("blob-server", default="", help="Comma-separated list of blob-servers to contact, instead of the configuration.")
@switch("dump", help="Dump configuration and exit?")
@switch("verbose", help="Show more output from the API-server.")
@flag("workers", type=int, help="Worker processes of each service; one for each core unless set.")
@flag("token-file", help="A file with the token that uploads must carry.")
@flag("secret-file", help="A file with the secret of the blob-servers.")
@flag("spool", help="Where uploads wait until they are stored.  [default: /var/tmp]")
def api_server(
    api_host: str,
    upload_port: int,
    download_port: int,
    blob_server: str,
    dump: bool,
    verbose: bool,
    workers: int | None,
    token_file: str | None,
    secret_file: str | None,
    spool: str | None,
) -> None:
    """Launch an API-server, which takes uploads and serves them."""
    from holdfast.cli.sos import api_server as service
    from holdfast.cli.sos.environment import servers_from_environment, set_environment
    from holdfast.gateways.sos.servers import table

    set_environment(blob_server, token_file, secret_file, spool)
    if dump:
        click.echo(table(servers_from_environment().all))
        return
    service.run(api_host, (upload_port, download_port), workers, verbose, click.echo)


@main.command("replicate", cls=GoCommand, context_settings=_HELP)
@flag("min-copies", default=2, show_default=True, help="On how many servers of its group each object must be.")
@switch("verbose", "-v", help="Be more verbose?")
@switch("verify", help="Read every copy, and replace those that are wrong.")
@flag("daemon", type=float, help="Do it again so many seconds after it was done, until stopped.")
@flag("blob-server", default="", help="Comma-separated list of blob-servers to contact, instead of the configuration.")
@flag("secret-file", help="A file with the secret of the blob-servers.")
@flag("spool", help="Where copies wait until they are stored.  [default: /var/tmp]")
def replicate(
    min_copies: int,
    verbose: bool,
    verify: bool,
    daemon: float | None,
    blob_server: str,
    secret_file: str | None,
    spool: str | None,
) -> None:
    """Bring every object to enough blob-servers of its group."""
    from holdfast.cli.sos import replicate as service
    from holdfast.cli.sos.environment import set_environment
    from holdfast.gateways.sos.replicate import Options

    set_environment(blob_server, None, secret_file, spool)
    if not service.run(Options(min_copies, verify, verbose), daemon, click.echo):
        sys.exit(1)


@main.command("quickstart", context_settings=_HELP)
@click.argument("directory", type=click.Path(file_okay=False))
def quickstart(directory: str) -> None:
    """Make the programs of the original's Quick Start.

    golang/blob_server, golang/api_server and bin/replicate, in DIRECTORY.
    """
    from holdfast.cli.sos.quickstart import make

    for line in make(directory):
        click.echo(line)


@main.command("version", cls=GoCommand, context_settings=_HELP)
@switch("verbose", help="Say what it runs on, too.")
def version(verbose: bool) -> None:
    """Report upon our version, and exit."""
    click.echo(__version__)
    if verbose:
        click.echo(f"Running on Python {sys.version.split()[0]}")


if __name__ == "__main__":
    sys.exit(main())
