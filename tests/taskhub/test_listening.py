"""The listening socket."""

import os
import socket
import sys

import pytest

from taskhub.listening import AddressUnavailable, holder_of, listen, url_of


def test_a_free_port_is_taken_and_listened_on_at_once() -> None:
    with listen("127.0.0.1", 0, move_on=False) as sock:
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=60):
            pass

        assert url_of(sock) == f"http://127.0.0.1:{port}"


def test_a_busy_port_moves_on_to_the_next_where_that_is_wanted() -> None:
    with listen("127.0.0.1", 0, move_on=False) as first:
        port = first.getsockname()[1]
        with listen("127.0.0.1", port, move_on=True) as second:
            assert port < second.getsockname()[1] <= port + 100


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who holds a port")
def test_a_busy_port_is_an_error_that_names_its_holder_where_that_is_wanted() -> None:
    with listen("127.0.0.1", 0, move_on=False) as first:
        port = first.getsockname()[1]

        with pytest.raises(AddressUnavailable, match=f"port {port} is in use by process {os.getpid()} "):
            listen("127.0.0.1", port, move_on=False)


def test_nobody_holds_a_free_port() -> None:
    with listen("127.0.0.1", 0, move_on=False) as sock:
        port = sock.getsockname()[1]

    assert holder_of(port) is None


def test_an_address_of_another_machine_is_an_error_not_a_search() -> None:
    with pytest.raises(AddressUnavailable, match=r"cannot listen on 192\.0\.2\.1 port 8000"):
        listen("192.0.2.1", 8000, move_on=True)


def test_a_name_that_means_nothing_is_an_error() -> None:
    with pytest.raises(AddressUnavailable, match=r"cannot listen on no\.such\.host\.invalid"):
        listen("no.such.host.invalid", 0, move_on=True)


def test_a_wildcard_address_is_shown_as_one_that_can_be_typed() -> None:
    with listen("0.0.0.0", 0, move_on=False) as sock:
        assert url_of(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    try:
        sock = listen("::1", 0, move_on=False)
    except AddressUnavailable:
        pytest.skip("this machine has no IPv6")
    with sock:
        assert url_of(sock) == f"http://[::1]:{sock.getsockname()[1]}"
