"""Requests whose address somebody else chose reach the public network alone."""

import ipaddress

import aiohttp
import pytest

from taskhub.oauth.guard import Guard, was_refused


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450:4001:800::200e", "64:ff9b::808:808"]
)
def test_public_addresses_may_be_reached(address: str) -> None:
    assert Guard().allows(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
        "239.255.255.250", "240.0.0.1", "255.255.255.255",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "100::1",
        "2001:db8::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "3fff::1", "5f00::1",
        "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::7f00:1",
        "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::",
        "2002:a9fe:a9fe::1", "2a00::5efe:7f00:1", "2a00::200:5efe:10.0.0.1",
        "", "localhost", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "1.1.1.1.",
    ],
)  # fmt: skip
def test_other_addresses_may_not_in_whatever_form_they_come(address: str) -> None:
    assert not Guard().allows(address)


def test_an_operator_may_name_networks_besides() -> None:
    guard = Guard([ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:1::/32")])

    assert guard.allows("10.1.2.3")
    assert guard.allows("::ffff:10.1.2.3")
    assert guard.allows("fd00:1::5")
    assert not guard.allows("10.2.0.1")
    assert not guard.allows("fd00:2::5")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST", "127.1", "0x7f.1", "2130706433", "0177.0.0.1", "0", "[::1]",
        "[::ffff:127.0.0.1]",
    ],
)  # fmt: skip
async def test_no_spelling_of_this_machine_is_connected_to(host: str) -> None:
    async with aiohttp.ClientSession(connector=await Guard().connector()) as session:
        with pytest.raises(aiohttp.ClientError) as failed:
            await session.get(f"https://{host}:9/metadata.json")

    # The odder ones the HTTP client refuses by itself; no other failure will do, which might mean a connection.
    assert isinstance(failed.value, aiohttp.InvalidURL) or was_refused(failed.value)


async def test_a_connection_that_the_environment_would_send_elsewhere_is_guarded_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://8.8.8.8:1")
    async with aiohttp.ClientSession(connector=await Guard().connector(), trust_env=False) as session:
        with pytest.raises(aiohttp.ClientError) as failed:
            await session.get("https://127.0.0.1:9/metadata.json")

    assert was_refused(failed.value)
