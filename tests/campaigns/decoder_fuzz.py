"""Damaged requests: the decoder answers each with a request or with a typed refusal, never with anything else."""

from __future__ import annotations

import random

from ampd.control.codec import RequestError, decode_request

NAME = "decoder-fuzz"
INPUTS = 500
_SEEDS = (
    b'{"v":1,"id":"0123456789","command":{"op":"set","changes":{"amp.dtype":"float16"},"if_revision":3}}',
    b'{"v":1,"id":"0123456789","command":{"op":"status"}}',
    b'{"v":1,"id":"0123456789","command":{"op":"inject","fault":"overflow","windows":2}}',
)
_PIECES = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b":",
    b",",
    b"null",
    b"1e999",
    b"-0",
    b"NaN",
    b"\\ud800",
    b"\xff",
    b'"op"',
    b"[" * 3000,
)


def case(seed: int, inputs: int = INPUTS) -> None:
    """Decode so many damaged requests."""
    draw = random.Random(seed)
    for _ in range(inputs):
        frame = damaged(draw)
        try:
            decode_request(frame)
        except RequestError as refusal:
            assert refusal.code, frame


def damaged(draw: random.Random) -> bytes:
    """A request that was cut, spliced and sprinkled; now and then still a good one."""
    frame = bytearray(draw.choice(_SEEDS))
    for _ in range(draw.randint(1, 5)):
        at = draw.randrange(len(frame) + 1)
        match draw.randrange(4):
            case 0:
                frame[at : at + draw.randint(1, 8)] = b""
            case 1:
                frame[at:at] = draw.choice(_PIECES)
            case 2:
                frame[at:at] = draw.randbytes(draw.randint(1, 4))
            case _:
                other = draw.choice(_SEEDS)
                frame[at:] = other[draw.randrange(len(other)) :]
    return bytes(frame)
