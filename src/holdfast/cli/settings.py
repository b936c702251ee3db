"""What `serve` can be told, and where: on the command line, as HOLDFAST_* variables, in a TOML file.

One table drives all three. The command line wins over the environment, the environment over the file, the file over
the defaults; docs/operating/settings.md says the same in prose, and a test holds the page to the table.
"""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.cli.kms import parse_kms
from holdfast.core.errors import InvalidRequest

if TYPE_CHECKING:
    # At run time imported where it is used: every command reads this table, and few need what comes with these.
    from holdfast.erasure.code import Code

DRIVES_VARIABLE = "HOLDFAST_DRIVES"
"""The drives' directories, joined by colons: for an application server that starts the ASGI application itself."""


# More than any count or size that is set.
_NUMBER_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: `--name` on the command line, `name` in TOML, HOLDFAST_NAME in the environment."""

    name: str
    parse: Callable[[str], Any]
    default: Any
    metavar: str
    help: str

    @property
    def variable(self) -> str:
        return "HOLDFAST_" + self.name.replace("-", "_").upper()

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")


def _is_number(text: str) -> bool:
    """Whether `int` takes it: `str.isdigit` alone is true of ³, and of more digits than it reads."""
    return text.isascii() and text.isdigit() and len(text) <= _NUMBER_MAX_DIGITS


def parse_listen(text: str) -> tuple[str, int]:
    """HOST:PORT, with brackets around an IPv6 address."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not _is_number(port) or int(port) > 65535:
        raise InvalidRequest(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _parse_air(text: str) -> tuple[str, int]:
    """PORT, which is of this machine alone, or HOST:PORT."""
    return parse_listen(text if ":" in text else f"127.0.0.1:{text}")


def _parse_code(text: str) -> tuple[int, int]:
    k, plus, m = text.partition("+")
    if not plus or not _is_number(k) or not _is_number(m):
        raise InvalidRequest(f"{text!r} is not K+M, such as 4+2")
    return int(k), int(m)


def _parse_count(text: str) -> int:
    if not _is_number(text):
        raise InvalidRequest(f"{text!r} is not a number")
    return int(text)


def _parse_choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise InvalidRequest(f"{text!r} is none of: {', '.join(choices)}")
        return text

    return parse


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """Seconds, from a number with s, m, h or d behind it, or none for seconds."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    try:
        seconds = float(number) * _UNITS[unit]
    except ValueError:
        raise InvalidRequest(f"{text!r} is not a duration, such as 90s, 15m, 1h or 7d") from None
    if not 0 <= seconds < float("inf"):
        raise InvalidRequest(f"{text!r} is not a duration, such as 90s, 15m, 1h or 7d")
    return seconds


OPTIONS = (
    Option("listen", parse_listen, ("127.0.0.1", 9000), "HOST:PORT", "Where S3 is served."),
    Option(
        "metrics-listen",
        parse_listen,
        ("127.0.0.1", 9001),
        "HOST:PORT",
        "Where /metrics is served; /health is at --listen.",
    ),
    Option("air", _parse_air, None, "[HOST:]PORT", "Also serve air there: put and get by plain paths."),
    Option("air-token-file", Path, None, "FILE", "The token that air asks for; without, 127.0.0.1 only."),
    Option("code", _parse_code, None, "K+M", "Erasure code of new objects: K data and M parity fragments."),
    Option("copies", _parse_count, None, "N", "Keep N whole copies of new objects instead of an erasure code."),
    Option(
        "matrix",
        _parse_choice("cauchy", "vandermonde"),
        "cauchy",
        "NAME",
        "Matrix of the erasure code: cauchy or vandermonde.",
    ),
    Option("metacopies", _parse_count, None, "N", "Drives that hold the metadata log; one more than may be lost."),
    Option("workers", _parse_count, None, "N", "Worker processes; one for each core unless set."),
    Option(
        "sync",
        _parse_choice("strict", "relaxed"),
        "strict",
        "MODE",
        "strict answers when data is on stable storage; relaxed may lose the last seconds in a power cut.",
    ),
    Option("tls-cert", Path, None, "FILE", "Certificate chain, PEM; with --tls-key S3 is served over TLS."),
    Option("tls-key", Path, None, "FILE", "Private key of the certificate, PEM."),
    Option("domain", str, None, "NAME", "Also serve BUCKET.NAME, virtual-host style."),
    Option("region", str, "us-east-1", "NAME", "Region that signatures must name."),
    Option("grace", parse_duration, 3600.0, "TIME", "How long deleted blocks are kept for readers and backups."),
    Option("upload-age", parse_duration, None, "TIME", "Abort uploads in parts that were started so long ago."),
    Option("kek-file", Path, None, "FILE", "The key-encryption key, when it was detached to a file."),
    Option("passphrase-file", Path, None, "FILE", "The passphrase, when the keyring was detached to one."),
    Option("kms", parse_kms, None, "URL", "The key of a KMS, when the key-encryption key was detached to one."),
    Option("kms-token-file", Path, None, "FILE", "The token for --kms."),
    Option("access-log", Path, None, "FILE", "Append a line of JSON for each request; - is standard output."),
    Option("run-dir", Path, None, "DIR", "Where processes of this store meet; on tmpfs."),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a store and its server were told. Field names are those of OPTIONS, with underscores."""

    drives: tuple[Path, ...]
    listen: tuple[str, int]
    metrics_listen: tuple[str, int]
    air: tuple[str, int] | None
    air_token_file: Path | None
    code: tuple[int, int] | None
    copies: int | None
    matrix: str
    metacopies: int | None
    workers: int | None
    sync: str
    tls_cert: Path | None
    tls_key: Path | None
    domain: str | None
    region: str
    grace: float
    upload_age: float | None
    kek_file: Path | None
    passphrase_file: Path | None
    kms: str | None
    kms_token_file: Path | None
    access_log: Path | None
    run_dir: Path | None

    def chosen_code(self, drives: int) -> "Code":
        """The code that was asked for, or the default for so many drives. Raises InvalidRequest."""
        from holdfast.erasure.code import Matrix, copies, erasure

        if self.code is not None and self.copies is not None:
            raise InvalidRequest("--code and --copies exclude each other")
        if self.copies is not None:
            code = copies(self.copies)
        elif self.code is not None:
            code = erasure(*self.code, Matrix(self.matrix))
        else:
            code = default_code(drives, self.matrix)
        if code.width > drives:
            raise InvalidRequest(f"{code} needs {code.width} drives, and there are {drives}")
        return code

    def to_environment(self) -> dict[str, str]:
        """Variables that `from_environment` reads back, for worker processes."""
        variables = {DRIVES_VARIABLE: ":".join(str(path.absolute()) for path in self.drives)}
        for option in OPTIONS:
            value = getattr(self, option.field)
            if value is not None:
                variables[option.variable] = _format(option, value)
        return variables


def default_code(drives: int, matrix: str = "cauchy") -> "Code":
    """One drive: one copy; two or three: two copies; four or five: 2+2; six and more: 4+2."""
    from holdfast.erasure.code import Matrix, copies, erasure

    if drives <= 1:
        return copies(1)
    if drives <= 3:
        return copies(2)
    return erasure(2 if drives <= 5 else 4, 2, Matrix(matrix))


def load(
    drives: tuple[Path, ...],
    given: Mapping[str, str | None],
    environment: Mapping[str, str],
    config: Path | None,
) -> Settings:
    """Settings from the command line (`given`, by option name), the environment and a TOML file.

    Raises InvalidRequest with the place where the wrong value was found.
    """
    table = _read_config(config)
    values: dict[str, Any] = {}
    unset: set[str] = set()
    for option in OPTIONS:
        text, place = given.get(option.name), f"--{option.name}"
        if text is None:
            text, place = environment.get(option.variable), option.variable
        if text is None:
            text, place = table.pop(option.name, None), f"{config}: {option.name}"
        else:
            table.pop(option.name, None)
        if text is None:
            values[option.field] = option.default
            unset.add(option.field)
            continue
        try:
            values[option.field] = option.parse(text)
        except InvalidRequest as error:
            raise InvalidRequest(f"{place}: {error}") from None
    if not drives:
        listed = environment.get(DRIVES_VARIABLE) or table.get("drives", "")
        drives = tuple(Path(part) for part in listed.split(":") if part)
    table.pop("drives", None)
    if values["air"] is not None:
        from holdfast.cli import air_variables

        values |= air_variables.settings_of(environment, unset)
        drives = drives or air_variables.drives_of(environment)
    if table:
        raise InvalidRequest(f"{config}: unknown settings: {', '.join(sorted(table))}")
    if (values["tls_cert"] is None) != (values["tls_key"] is None):
        raise InvalidRequest("--tls-cert and --tls-key go together")
    if (values["kms"] is None) != (values["kms_token_file"] is None):
        raise InvalidRequest("--kms and --kms-token-file go together")
    if values["air"] is not None:
        from holdfast.gateways.air.access import check_listen

        check_listen(values["air"][0], has_token=values["air_token_file"] is not None)
    # Other processes of the store are told these paths, and have a working directory of their own.
    return Settings(drives=tuple(path.absolute() for path in drives), **values)


def from_environment() -> Settings:
    """Settings of a worker process, or of an application server that starts the application itself."""
    config = os.environ.get("HOLDFAST_CONFIG")
    return load((), {}, os.environ, Path(config) if config else None)


def _read_config(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path}: {error}") from None
    flat: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, list) and name == "drives":
            flat[name] = ":".join(str(path.parent / str(entry)) for entry in value)
        elif isinstance(value, (str, int)) and not isinstance(value, bool):
            flat[name] = str(value)
        else:
            raise InvalidRequest(f"{path}: {name} must be a string or a number")
    return flat


def in_words(option: Option) -> str:
    """The default, as it would be given."""
    if option.parse is not parse_duration:
        return _format(option, option.default)
    unit = next(unit for unit, seconds in reversed(_UNITS.items()) if not option.default % seconds)
    return f"{option.default / _UNITS[unit]:g}{unit}"


def _format(option: Option, value: Any) -> str:
    if option.parse in (parse_listen, _parse_air):
        host, port = value
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if option.parse is _parse_code:
        return f"{value[0]}+{value[1]}"
    return str(value)
