"""The tests' own parser: it accepts what the contract allows and refuses what clients would trip over."""

import pytest

from tests.e2e.harness.frames import ChunkDecoder, FrameParser, WireViolation

HELLO = b'retry: 2417\nid: k7q2m4xa-1\nevent: hello\ndata: {"stream":"st_1"}\n\n'
MESSAGE = b'id: k7q2m4xa-2\nevent: message\ndata: {"id":"k7q2m4xa-2","type":"build.finished"}\n\n'


def test_a_stream_as_documented_is_accepted_however_it_is_cut() -> None:
    whole = HELLO + b":\n" + MESSAGE + b":\n:\n"
    for cut in range(len(whole)):
        parser = FrameParser()
        parser.feed(whole[:cut])
        parser.feed(whole[cut:])

        assert [frame.event for frame in parser.frames] == ["hello", "message"]
        assert (parser.heartbeats, parser.last_event_id, parser.at_boundary) == (3, "k7q2m4xa-2", True)


@pytest.mark.parametrize(
    "wire",
    [
        b"\xef\xbb\xbf" + HELLO,
        HELLO.replace(b"\n", b"\r\n"),
        MESSAGE,
        HELLO + HELLO,
        HELLO + b":\n\n",
        HELLO + b": ping\n",
        HELLO + b"\n",
        HELLO + b"retry: 10\n\n",
        HELLO + b"id: a-1\n\n",
        HELLO + b"event: ready\n\n",
        HELLO + b'data: {"a":1}\n\n',
        HELLO + b"event: message\ndata: {\ndata: }\n\n",
        HELLO + b'event: message\n:\ndata: {"a":1}\n\n',
        HELLO + b"event: message\ndata: plain\n\n",
        HELLO + b"event: message\ndata: [1]\n\n",
        HELLO + b'event:message\ndata: {"a":1}\n\n',
        HELLO + b'id: two words\nevent: message\ndata: {"a":1}\n\n',
        HELLO + b"event: goodbye\ndata: {}\n\n" + MESSAGE,
        b"event: hello\ndata: {}\n\n",
        HELLO + b'event: message\ndata: {"a":"\xff"}\n\n',
    ],
)
def test_what_the_contract_does_not_allow_is_refused(wire: bytes) -> None:
    with pytest.raises(WireViolation):
        FrameParser().feed(wire)


def test_chunks_keep_the_borders_of_the_servers_writes() -> None:
    wire = b"5\r\nab\r\nc\r\n2\r\nde\r\n0\r\n\r\n"
    for cut in range(len(wire)):
        decoder = ChunkDecoder()
        payloads = decoder.feed(wire[:cut]) + decoder.feed(wire[cut:])

        assert payloads == [b"ab\r\nc", b"de"]
        assert decoder.finished
