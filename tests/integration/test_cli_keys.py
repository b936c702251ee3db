"""The keyring and the metadata in the operator's hands, while the store is served and when it is not."""

from pathlib import Path

from tests.integration.conftest import StartServer
from tests.integration.operator import Objects, command
from tests.unit.cli.transit import TOKEN, transit


def secret(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def test_a_rotation_under_a_running_server(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(3)
    objects = Objects(server)
    objects.put(6)
    phrase = secret(tmp_path, "phrase", "correct horse")
    command(server, "keyring", "backup", tmp_path / "one", "--backup-passphrase-file", phrase).well()
    said = command(server, "keyring", "rotate", "--json").well().document
    assert (said["epoch"], said["rewrapped"]) == (2, 4)
    objects.check()
    objects.put(3)
    objects.check()
    command(server, "fsck").well()
    said_older = command(server, "keyring", "verify", "--backup", tmp_path / "one", "--backup-passphrase-file", phrase)
    assert said_older.status == 1
    assert "rotated since" in said_older.out
    server.stop()
    server.start()
    objects.check()
    wrong = secret(tmp_path, "wrong", "correct mule")
    said_wrong = command(server, "keyring", "verify", "--backup", tmp_path / "one", "--backup-passphrase-file", wrong)
    assert said_wrong.status == 1
    assert "does not open" in said_wrong.errors


def test_detached_to_a_file_and_back(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(2)
    objects = Objects(server)
    objects.put(3)
    assert "no protection against theft" in command(server, "status").well().out
    inside = command(server, "keyring", "detach", "--kek-file", server.directories[0] / "kek")
    assert inside.status == 1
    assert "keep the key elsewhere" in inside.errors
    file = tmp_path / "kek"
    key = (server.directories[1] / "keys" / "kek").read_bytes()
    command(server, "keyring", "detach", "--kek-file", file).well()
    assert file.stat().st_mode & 0o777 == 0o600
    assert not [path for drive in server.directories for path in drive.glob("keys/*")]
    objects.put(3)
    said = command(server, "status")
    assert said.status == 1
    assert "detached from the drives: give --kek-file" in said.errors
    old = server.directories[1] / "keys" / "kek"
    old.write_bytes(key)
    said = command(server, "status")
    assert said.status == 1
    assert "an old one, from before it was detached: give --kek-file" in said.errors
    old.unlink()
    refused = command(server, "keyring", "rotate", "--kek-file", file)
    assert refused.status == 1
    assert "restart the server first" in refused.errors
    assert "no protection" not in command(server, "status", "--kek-file", file).well().out
    server.stop()
    server._environment["HOLDFAST_KEK_FILE"] = str(file)
    server.start()
    command(server, "keyring", "rotate").well()
    objects.put(3)
    objects.check()
    command(server, "keyring", "attach").well()
    server.stop()
    del server._environment["HOLDFAST_KEK_FILE"]
    server.start()
    objects.check()


def test_detached_to_a_service_and_back(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(2)
    objects = Objects(server)
    objects.put(3)
    with transit() as service:
        given = ("--kms", service.address, "--kms-token-file", secret(tmp_path, "token", TOKEN))
        command(server, "keyring", "detach", *given).well()
        assert not [path for drive in server.directories for path in drive.glob("keys/*")]
        said = command(server, "status")
        assert "detached to a KMS: give --kms and --kms-token-file" in said.errors
        assert "no protection" not in command(server, "status", *given).well().out
        server.stop()
        server._environment |= {"HOLDFAST_KMS": service.address, "HOLDFAST_KMS_TOKEN_FILE": str(given[-1])}
        server.start()
        command(server, "keyring", "rotate").well()
        service.is_sealed = True
        objects.put(3)
        objects.check()
        said = command(server, "status")
        assert (said.status, "Vault is sealed" in said.errors) == (1, True), (
            "who serves needs it no more, who comes does"
        )
        service.is_sealed = False
        command(server, "keyring", "attach").well()
    server.stop()
    server.start()
    objects.check()
    assert TOKEN not in server.log.read_text()


def test_a_lost_passphrase_and_the_backup(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(2)
    objects = Objects(server)
    objects.put(3)
    phrase, forgotten = secret(tmp_path, "phrase", "correct horse"), secret(tmp_path, "forgotten", "battery staple")
    backup = tmp_path / "backup"
    command(server, "keyring", "backup", backup, "--backup-passphrase-file", phrase).well()
    assert command(server, "keyring", "backup", backup, "--backup-passphrase-file", phrase).status == 1
    command(server, "keyring", "verify", "--backup", backup, "--backup-passphrase-file", phrase).well()
    command(server, "keyring", "detach", "--passphrase-file", forgotten).well()
    command(server, "status", "--passphrase-file", forgotten).well()
    server.stop()
    assert command(server, "status").status == 1
    command(server, "keyring", "restore", backup, "--backup-passphrase-file", phrase).well()
    server.start()
    objects.check()


def test_a_passphrase_is_never_taken_from_the_command_line(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(1)
    said = command(server, "keyring", "backup", tmp_path / "backup")
    assert said.status == 1
    assert "no terminal to ask for the passphrase on" in said.errors
    assert not (tmp_path / "backup").exists()


def test_metadata_of_a_live_store_is_backed_up_and_restored(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(3, options=("--grace", "1h"))
    objects = Objects(server)
    objects.put(6)
    command(server, "metadata", "backup", tmp_path / "backup").well()
    then = dict(objects.kept)
    objects.s3.delete_object(Bucket="proof", Key="key-2")
    objects.s3.put_object(Bucket="proof", Key="key-4", Body=b"changed since")
    objects.s3.put_object(Bucket="proof", Key="later", Body=b"given up")
    running = command(server, "metadata", "restore", tmp_path / "backup")
    assert running.status == 1
    assert "stop the server" in running.errors
    command(server, "keyring", "rotate").well()
    server.stop()
    said = command(server, "metadata", "restore", tmp_path / "backup").well()
    assert "every block that it names is there" in said.out
    server.start()
    objects.kept = then
    objects.check()
    objects.put(3)
    command(server, "fsck").well()


def test_a_restore_that_was_cut_off_is_ended_by_another(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(2)
    objects = Objects(server)
    objects.put(3)
    command(server, "metadata", "backup", tmp_path / "backup").well()
    then = dict(objects.kept)
    objects.put(3)
    server.stop()
    # As a kill between the two renames of the first drive leaves it.
    first, second = server.directories
    for drive in (first, second):
        (drive / "meta.restoring").touch()
    (first / "meta").rename(first / "meta.old")
    (first / "meta.new").mkdir()
    said = command(server, "status")
    assert said.status == 1
    assert "give the same command again" in said.errors
    command(server, "metadata", "restore", tmp_path / "backup").well()
    assert sorted(path.name for path in first.glob("meta*")) == ["meta"]
    server.start()
    objects.kept = then
    objects.check()


def test_a_backup_older_than_the_grace_says_what_is_gone(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(1, options=("--grace", "0s"))
    objects = Objects(server)
    objects.put(3)
    command(server, "metadata", "backup", tmp_path / "backup").well()
    objects.s3.delete_object(Bucket="proof", Key="key-2")
    server.stop()
    server.start()  # the collection looks at once
    objects.put(1)
    fragments = None
    for _ in range(60):
        [drive] = command(server, "drive", "list", "--json").document["drives"]
        fragments = drive["fragments"]
        if fragments == 1:
            break
    assert fragments == 1
    server.stop()
    said = command(server, "metadata", "restore", tmp_path / "backup")
    assert said.status == 1
    assert "cannot be brought back, its blocks were deleted since: proof/key-2" in said.out
    server.start()
    assert objects.s3.get_object(Bucket="proof", Key="key-1")["Body"].read() == objects.kept["key-1"]
