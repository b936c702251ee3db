"""Every parser that bytes from outside reach bears any bytes: it refuses them with one of our errors, or reads them.

PARSERS says where each is fuzzed with hypothesis, and is held to that. What no unit test fuzzes is fuzzed here: files
that lie on a drive or are given by an operator.
"""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cli.settings import load, parse_duration, parse_listen
from holdfast.cli.site import PLACES_NAME, read_places, undo_unfinished
from holdfast.core.errors import Corrupt, HoldfastError, InvalidRequest
from holdfast.core.ids import DriveId, StoreId
from holdfast.crypto.backup import read_backup
from holdfast.drives.identity import JOURNAL_NAME, Identity, decode_identity, encode_identity
from holdfast.drives.os_disk import OsDisk
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.list_objects import _open_token
from holdfast.meta.local.checkpoint import CheckpointReader
from holdfast.objects.listing import _decode_resume

UNIT = Path(__file__).parents[1] / "unit"

PARSERS = {
    "SigV4 header and query": ("gateways/s3/test_sigv4.py", "test_nothing_unsigned_passes_and_nothing_else_is_raised"),
    "path and query": ("gateways/s3/test_parsers.py", "test_any_query_and_path_are_split"),
    "aws-chunked framing": ("gateways/s3/test_chunked.py", "test_any_bytes_are_decoded_or_refused"),
    "XML bodies": ("gateways/s3/test_parsers.py", "test_any_document_is_read_or_refused"),
    "tags, header": ("gateways/s3/test_tagging.py", "test_any_header_is_parsed_or_refused"),
    "tags, document": ("gateways/s3/test_tagging.py", "test_any_document_is_parsed_or_refused"),
    "POST forms": ("gateways/s3/test_post_object.py", "test_any_bytes_are_a_form_or_refused"),
    "POST policies": ("gateways/s3/test_post_object.py", "test_any_policy_is_parsed_or_refused"),
    "copy source": ("gateways/s3/test_copies.py", "test_any_source_is_parsed_or_refused"),
    "copy source range": ("gateways/s3/test_copies.py", "test_any_source_range_is_parsed_or_refused"),
    "Range": ("gateways/s3/test_parsers.py", "test_any_range_lies_inside_or_is_refused"),
    "conditions, with their dates": ("gateways/s3/test_parsers.py", "test_any_condition_is_decided"),
    "records and segments": ("drives/test_formats.py", "test_parsers_take_any_bytes"),
    "segments that are scanned": ("drives/test_formats.py", "test_a_scan_takes_any_file"),
    "metadata log, witness, checkpoint": ("meta/test_formats.py", "test_parsers_bear_anything"),
    "rows": ("objects/test_rows.py", "test_what_is_no_row_is_corrupt"),
    "layouts": ("placement/test_layout.py", "test_noise_is_refused"),
    "keyring and key files": ("crypto/test_keyring.py", "test_noise_is_refused_by_every_decoder"),
    "envelopes": ("crypto/test_envelope.py", "test_noise_is_corrupt"),
    "commitments": ("erasure/test_commitment.py", "test_the_decoder_takes_what_it_would_write_and_nothing_else"),
    "inner nodes": ("tree/test_node.py", "test_noise_is_corrupt"),
    "entries and links": ("tree/test_entry.py", "test_noise_never_crashes_and_what_decodes_encodes_the_same"),
}


@pytest.mark.parametrize("parser", PARSERS)
def test_every_parser_is_fuzzed(parser: str) -> None:
    file, test = PARSERS[parser]
    text = (UNIT / file).read_text()
    before, _, _ = text.partition(f"def {test}(")
    assert before != text, "the test is gone"
    assert "@given(" in before[-1500:].rpartition("\n\n\n")[2], "it is not fuzzed"


IDENTITY = encode_identity(Identity(StoreId(bytes(16)), DriveId(bytes(range(16)))))


@given(st.binary(max_size=200) | st.tuples(st.integers(0, len(IDENTITY) - 1), st.integers(1, 255)))
def test_a_drives_identity(change: bytes | tuple[int, int]) -> None:
    if isinstance(change, bytes):
        data = change
    else:
        at, flip = change
        data = IDENTITY[:at] + bytes([IDENTITY[at] ^ flip]) + IDENTITY[at + 1 :]
    with pytest.raises((Corrupt, InvalidRequest)):
        decode_identity(data, Path("/drive"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["format", "drives", "directories"]), inner),
)


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=60, deadline=None)
def test_what_a_drive_remembers_and_the_journal_of_a_store_in_the_making(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    directory = tmp_path_factory.mktemp("drive")
    (directory / PLACES_NAME).write_bytes(data)
    assert isinstance(read_places(OsDisk(), directory), dict)
    (directory / JOURNAL_NAME).write_bytes(data)
    (directory / "kept").write_bytes(b"")
    with pytest.raises(HoldfastError):
        undo_unfinished(OsDisk(), [directory])
    assert (directory / "kept").exists(), "nothing is deleted on the word of a journal that is none"


NAMES = ["drives", "workers", "grace", "code", "listen", "sync", "[table]", "é"]
VALUES = st.text() | st.sampled_from(["3", '"2h"', "[1, 2]", "{a = 1}", "1e400", "true", "-1", '"4+2"', '":9000"'])


@given(st.binary(max_size=100) | st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=4))
@settings(max_examples=60, deadline=None)
def test_a_file_of_settings(tmp_path_factory: pytest.TempPathFactory, content: bytes | list[tuple[str, str]]) -> None:
    if not isinstance(content, bytes):
        content = "\n".join(f"{name} = {value}" for name, value in content).encode("utf-8", "surrogatepass")
    file = tmp_path_factory.mktemp("settings") / "holdfast.toml"
    file.write_bytes(content)
    try:
        load((Path("/drive"),), {}, {}, file)
    except InvalidRequest:
        pass


@given(st.text(max_size=30) | st.from_regex(r"[0-9.e+-]{0,12}[smhd]?:?[0-9]{0,8}", fullmatch=True))
def test_durations_and_addresses(text: str) -> None:
    for parse in (parse_duration, parse_listen):
        try:
            parse(text)
        except InvalidRequest:
            pass


@given(
    st.binary(max_size=300) | st.text(st.sampled_from("holdfast keyring\n=ABCabc012+/-"), max_size=300).map(str.encode)
)
def test_a_backup_of_the_keyring(data: bytes) -> None:
    with pytest.raises(Corrupt):
        read_backup(data)


@given(st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_a_backup_of_the_metadata(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.mktemp("backup") / "backup"
    file.write_bytes(data)
    reader = CheckpointReader(OsDisk(), file)
    try:
        with pytest.raises((Corrupt, InvalidRequest)):
            reader.head()
    finally:
        reader.close()


@given(st.text(max_size=80))
def test_continuation_tokens(token: str) -> None:
    try:
        resume = _open_token(token)
    except S3Error:
        return
    try:
        _decode_resume(resume)
    except HoldfastError:
        pass
