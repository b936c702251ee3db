"""What flags and configuration files say, in environment variables: that is how worker processes know it.

`sos replicate` reads this and little else, so nothing of a server is imported here.
"""

import os
import tempfile
from pathlib import Path

from holdfast.core.errors import InvalidRequest
from holdfast.gateways.sos.servers import Servers

SECRET_VARIABLE = "SOS_SECRET"  # noqa: S105  the name of a variable
BLOB_SERVERS_VARIABLE = "SOS_BLOB_SERVERS"
CONFIG_VARIABLE = "SOS_CONFIG"
"""The configuration as it was read by the first process, for its workers."""
TOKEN_VARIABLE = "SOS_UPLOAD_TOKEN"  # noqa: S105  the name of a variable
SPOOL_VARIABLE = "SOS_SPOOL"

CONFIG_FILES = ("/etc/sos.conf", "~/.sos.conf")

# Uploads pass through here. /tmp is memory on many machines.
SPOOL_DIRECTORY = Path("/var/tmp")  # noqa: S108  files there have no name


def read_secret(path: str | None, variable: str) -> str:
    """A secret from a file, else from the environment; "" when there is none. Raises InvalidRequest."""
    if path is None:
        return os.environ.get(variable, "")
    try:
        secret = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from None
    if not secret:
        raise InvalidRequest(f"{path} is empty: a secret was expected")
    return secret


def set_environment(blob_server: str, token_file: str | None, secret_file: str | None, spool: str | None) -> None:
    """Tell workers what the flags and the configuration files say. Raises InvalidRequest."""
    os.environ[TOKEN_VARIABLE] = read_secret(token_file, TOKEN_VARIABLE)
    os.environ[SECRET_VARIABLE] = read_secret(secret_file, SECRET_VARIABLE)
    os.environ[BLOB_SERVERS_VARIABLE] = blob_server
    os.environ[CONFIG_VARIABLE] = "" if blob_server else read_config()
    default = str(SPOOL_DIRECTORY) if SPOOL_DIRECTORY.is_dir() else tempfile.gettempdir()
    chosen = spool or os.environ.get(SPOOL_VARIABLE, default)
    if not Path(chosen).is_dir():
        raise InvalidRequest(f"-spool: {chosen} is no directory")
    os.environ[SPOOL_VARIABLE] = chosen


def read_config() -> str:
    """Both configuration files; one that is not there is empty. Raises InvalidRequest."""
    texts: list[str] = []
    for name in CONFIG_FILES:
        try:
            # A group begins and ends with its file.
            texts.append(f"[default]\n{Path(name).expanduser().read_text()}")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{name} cannot be read: {error}") from None
    return "\n".join(texts)


def servers_from_environment() -> Servers:
    listed = os.environ.get(BLOB_SERVERS_VARIABLE, "")
    return Servers.listed(listed) if listed else Servers.parse(os.environ.get(CONFIG_VARIABLE, ""))
