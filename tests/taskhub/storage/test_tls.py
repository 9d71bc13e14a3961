"""PostgreSQL over TLS: addresses as libpq reads them, and what is wrong is said."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from taskhub.storage.database import Database
from taskhub.storage.migrate import migrate
from taskhub.tickets.errors import StorageBusy
from tests.certificates import Certificates, make_certificates
from tests.servers import PostgresServer


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[PostgresServer]:
    """A server that speaks TLS."""
    try:
        server = PostgresServer(certificate=certificates.certificate, key=certificates.key)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    try:
        server.start()
    except AssertionError:
        server.close()
        pytest.skip("this PostgreSQL was built without TLS")
    yield server
    server.close()


@pytest.fixture(scope="module")
def address(server: PostgresServer) -> Iterator[str]:
    """A database that has the newest schema."""
    url = server.create_database()
    migrate(url)
    yield url
    server.drop_database(url)


def with_tls(address: str, **parameters: object) -> str:
    return f"{address}?{urlencode(parameters)}"


async def ping(address: str) -> None:
    database = Database(address)
    try:
        await database.open()
        await database.ping()
        await asyncio.to_thread(migrate, address)
    finally:
        await database.close()


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_server_that_the_authority_vouches_for_is_used(
    address: str, certificates: Certificates, mode: str
) -> None:
    given = {} if mode == "require" else {"sslrootcert": certificates.authority}

    await ping(with_tls(address, sslmode=mode, **given))


async def test_a_server_of_another_authority_is_refused_and_why_is_said(address: str, tmp_path: Path) -> None:
    other = make_certificates(tmp_path)

    with pytest.raises(StorageBusy, match=r"certificate of the database server is refused: .*certificate"):
        await ping(with_tls(address, sslmode="verify-full", sslrootcert=other.authority))
    with pytest.raises(StorageBusy, match="certificate of the database server is refused: "):
        await asyncio.to_thread(migrate, with_tls(address, sslmode="verify-full", sslrootcert=other.authority))


async def test_a_server_under_another_name_is_refused_only_where_the_name_counts(
    address: str, certificates: Certificates
) -> None:
    elsewhere = address.replace("127.0.0.1", "localhost")

    await ping(with_tls(elsewhere, sslmode="verify-ca", sslrootcert=certificates.authority))
    with pytest.raises(StorageBusy, match="refused: Hostname mismatch"):
        await ping(with_tls(elsewhere, sslmode="verify-full", sslrootcert=certificates.authority))


async def test_a_server_without_tls_is_refused_where_it_is_demanded(postgres_url: str) -> None:
    with pytest.raises(StorageBusy, match="offers no TLS, which sslmode demands"):
        await ping(with_tls(postgres_url, sslmode="require"))
