"""Deleting many objects, or versions of them: a thousand in a request, several requests at once."""

from collections.abc import Iterable, Iterator
from itertools import islice

from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.crew import Crew
from holdfast.cli.client.listing import Entry
from holdfast.cli.client.reporting import Meter, Reporter, shown
from holdfast.core.errors import AccessDenied, HoldfastError, Unavailable
from holdfast.core.limits import DELETE_BATCH_MAX_COUNT


class Remover:
    """Deletes from one bucket, and tells of it."""

    def __init__(self, connection: Connection, crew: Crew, reporter: Reporter, bucket: str) -> None:
        self._connection = connection
        self._crew = crew
        self._reporter = reporter
        self._bucket = bucket

    def remove(self, entries: Iterable[Entry], *, with_versions: bool = False) -> int:
        """Delete objects; `with_versions` for ever the very versions that are named. How many went."""
        removed = 0
        with self._reporter.meter("Deleting") as meter:

            def delete(batch: list[Entry]) -> list[tuple[Entry, HoldfastError | None]]:
                return self._delete(batch, with_versions=with_versions)

            for batch, result in self._crew.each(_batches(entries, meter), delete):
                if isinstance(result, HoldfastError):
                    for entry in batch:
                        self._reporter.fail(result, self._name(entry))
                    continue
                for entry, error in result:
                    removed += error is None
                    self._tell(entry, error, with_versions=with_versions)
                    meter.finish_item()
        return removed

    def _delete(self, batch: list[Entry], *, with_versions: bool) -> list[tuple[Entry, HoldfastError | None]]:
        named = [
            {"Key": entry.key, "VersionId": entry.version_id} if with_versions else {"Key": entry.key}
            for entry in batch
        ]
        answer = self._connection.call("delete_objects", self._bucket, Delete={"Objects": named, "Quiet": True})
        wrong = {(error.get("Key"), error.get("VersionId", "")): error for error in answer.get("Errors", ())}
        results: list[tuple[Entry, HoldfastError | None]] = []
        for entry in batch:
            error = wrong.get((entry.key, entry.version_id if with_versions else "")) or wrong.get((entry.key, ""))
            if error is None:
                results.append((entry, None))
                continue
            kind = AccessDenied if error.get("Code") == "AccessDenied" else Unavailable
            said = f"{self._name(entry)}: not deleted: {error.get('Code')}: {error.get('Message', 'no reason given')}"
            results.append((entry, kind(said)))
        return results

    def _tell(self, entry: Entry, error: HoldfastError | None, *, with_versions: bool) -> None:
        name = self._name(entry)
        if error is not None:
            self._reporter.fail(error, name)
            return
        version = f" (version {entry.version_id})" if with_versions else ""
        record = {"version_id": entry.version_id} if with_versions else {}
        self._reporter.done(f"Deleted {shown(name)}{version}", status="deleted", name=name, **record)

    def _name(self, entry: Entry) -> str:
        return str(Remote(self._bucket, entry.key))


def _batches(entries: Iterable[Entry], meter: Meter) -> Iterator[list[Entry]]:
    source = iter(entries)
    while batch := list(islice(source, DELETE_BATCH_MAX_COUNT)):
        for _ in batch:
            meter.expect(0)
        yield batch
    meter.is_all_known = True
