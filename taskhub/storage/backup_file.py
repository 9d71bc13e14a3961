"""The file that a backup is: the rows of every table, the same from SQLite as from PostgreSQL.

Lines of JSON in a gzip stream: a header; of each table its name and columns, then its rows as lists of values; last
what must have come before, as counts of rows and the SHA-256 of all bytes up to there. A file without its last line is
cut off. Tables come in an order in which each refers to those before it (or to itself).
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

import orjson
from pydantic import TypeAdapter, ValidationError

FORMAT: Final = "taskhub-backup"
VERSION: Final = 1
MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""Longer than any row: what is no backup at all must not fill the memory."""

Row = Sequence[Any]


class CannotWrite(Exception):
    """The file cannot be written. No OSError: around a unit of the database, those say that the database is away."""


class BadBackup(Exception):
    """The file cannot be used: the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Log:
    """Where a workspace's log was when the backup was made."""

    epoch: str
    oldest_seq: int
    head_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the file is. `revision`: the migration whose tables it has. `logs`: by workspace."""

    format: str = FORMAT
    version: int = VERSION
    taskhub: str
    revision: str
    created_at: str
    logs: Mapping[str, Log]


@dataclass(frozen=True, slots=True)
class Table:
    """The beginning of a table: its rows follow."""

    table: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trailer:
    """What came before: rows by table, and the SHA-256 of the bytes, in hexadecimal."""

    rows: Mapping[str, int]
    sha256: str


_HEADER: Final = TypeAdapter(Header)
_TABLE: Final = TypeAdapter(Table)
_TRAILER: Final = TypeAdapter(Trailer)


class BackupWriter:
    """Writes a backup to an open file. After the last row you must `finish`. Raises CannotWrite."""

    def __init__(self, file: IO[bytes], header: Header) -> None:
        with _as_cannot_write():
            self._file = gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0)
        self._digest = hashlib.sha256()
        self._rows: dict[str, int] = {}
        self._table = ""
        self._write(asdict(header))

    def begin(self, table: Table) -> None:
        """The rows that come now are of this table."""
        self._table = table.table
        self._rows[table.table] = 0
        self._write(asdict(table))

    def row(self, values: Row) -> None:
        """A row of the table that was begun last, its values in the order of the columns."""
        self._rows[self._table] += 1
        self._write(values)

    def finish(self) -> Trailer:
        """Write the last line; the file below stays open."""
        trailer = Trailer(self._rows, self._digest.hexdigest())
        self._write(asdict(trailer))
        with _as_cannot_write():
            self._file.close()
        return trailer

    def _write(self, value: Any) -> None:
        line = orjson.dumps(value) + b"\n"
        self._digest.update(line)
        with _as_cannot_write():
            self._file.write(line)


@contextmanager
def _as_cannot_write() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(str(error)) from error


class BackupReader:
    """Reads a backup: its header at once, the rest by going through `contents`. A context manager.

    Raises OSError when there is no such file, and BadBackup as soon as something is wrong with it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = gzip.GzipFile(path, "rb")
        self._digest = hashlib.sha256()
        self.trailer: Trailer | None = None
        """There once all contents were read, and found to be as they were written."""
        try:
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "BackupReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def contents(self) -> Iterator[Table | Row]:
        """Each table followed by its rows. What has come is to be believed only when it has ended without BadBackup."""
        rows: dict[str, int] = {}
        columns, name = 0, ""
        while True:
            sha256 = self._digest.hexdigest()
            value = self._value()
            if isinstance(value, list):
                if not name or len(value) != columns:
                    raise self._damaged("a row is out of place")
                rows[name] += 1
                yield value
            elif "table" in value:
                table = self._checked(_TABLE, value)
                name, columns = table.table, len(table.columns)
                if name in rows:
                    raise self._damaged(f"the table {name} comes twice")
                rows[name] = 0
                yield table
            else:
                self.trailer = self._end(self._checked(_TRAILER, value), rows, sha256)
                return

    def _end(self, trailer: Trailer, rows: Mapping[str, int], sha256: str) -> Trailer:
        if trailer.sha256 != sha256:
            raise self._damaged("its SHA-256 is not the one that was written into it")
        if trailer.rows != rows:
            raise self._damaged("it has not as many rows as were written into it")
        if self._line():
            raise self._damaged("something follows its last line")
        return trailer

    def _read_header(self) -> Header:
        try:
            line = self._line()
            value = orjson.loads(line)
        except (BadBackup, orjson.JSONDecodeError):
            value = None
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise BadBackup(f"{self._path} is not a backup made by `taskhub backup`")
        if value.get("version") != VERSION:
            raise BadBackup(
                f"{self._path} has format {value.get('version')}, which a newer TaskHub has written; "
                f"this one reads format {VERSION}: update it"
            )
        self._digest.update(line)
        header: Header = self._checked(_HEADER, value)
        return header

    def _value(self) -> Any:
        line = self._line()
        if not line.endswith(b"\n"):
            raise BadBackup(f"{self._path} is cut off: its end is missing")
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise self._damaged("a line of it is not JSON") from None
        if not isinstance(value, list | dict):
            raise self._damaged("a line of it is neither a row nor a table")
        self._digest.update(line)
        return value

    def _line(self) -> bytes:
        try:
            line = self._file.readline(MAX_LINE_BYTES)
        except EOFError:
            raise BadBackup(f"{self._path} is cut off: its end is missing") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise self._damaged(str(error)) from None
        if len(line) == MAX_LINE_BYTES:
            raise self._damaged(f"a line of it has more than {MAX_LINE_BYTES} bytes")
        return line

    def _checked(self, adapter: TypeAdapter[Any], value: object) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError:
            raise self._damaged("a line of it has another form than it should have") from None

    def _damaged(self, how: str) -> BadBackup:
        return BadBackup(f"{self._path} is damaged: {how}")


def verify(path: Path) -> tuple[Header, Trailer]:
    """Read a backup to its end. Raises BadBackup, and OSError when it cannot be read."""
    with BackupReader(path) as reader:
        for _ in reader.contents():
            pass
        assert reader.trailer is not None  # noqa: S101  # contents() ended
        return reader.header, reader.trailer
