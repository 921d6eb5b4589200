"""A small decoder-only transformer over bytes: what the next byte is, at every position.

Shapes: B samples, T positions, D width, H heads, E width of a head (D = H * E), V = 256 byte values.

The plan is that of GPT-2 (pre-norm, tied embedding) with the parts that have since proved themselves: RMS norms,
rotary positions (Su et al. 2021), norms on queries and keys (Henry et al. 2020), squared ReLU (So et al. 2021).
Bytes carry less than a tokenizer's words, so the embedding of a position adds two rows chosen by hashes of the last
two and three bytes: almost no arithmetic, and on the default text 600 windows get to 1.28 nats per byte instead of
1.46 (tables of 8192 and 16384 rows). The input is summed in float32; matrix products run in autocast's type.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ampd_bytegpt.spec import Options

BYTE_VALUES = 256
ROTARY_BASE = 10_000.0  # Su et al. 2021
EMBEDDING_STD = 0.02  # GPT-2's; small, so that the tied output starts near the uniform distribution
# Odd multipliers for hashing the last bytes into a table (Knuth's multiplicative hashing).
PAIR_KEY, TRIPLE_KEY, MIX_KEY = 257, 66_049, 2_654_435_761
HASH_SHIFT = 15  # the upper bits of the product depend on all bits of the input


class ByteTransformer(nn.Module):
    """Logits (B, T, V) of the next byte for bytes (B, T) of type int64."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.embedding = ByteEmbedding(options)
        rotary = Rotary(options)  # one for all blocks
        self.blocks = nn.ModuleList(Block(options, rotary) for _ in range(options.layers))
        self.norm = nn.RMSNorm(options.width)

    def forward(self, bytes_BT: Tensor) -> Tensor:
        x_BTD = self.embedding(bytes_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return F.linear(self.norm(x_BTD), self.embedding.byte.weight)


class ByteEmbedding(nn.Module):
    """A vector for each position, from its byte and from hashes of its last two and three bytes."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.byte = _embedding(BYTE_VALUES, options.width)
        self.rows = options.ngram_rows
        self.pair = _embedding(self.rows, options.width) if self.rows else None
        self.triple = _embedding(self.rows, options.width) if self.rows else None
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, bytes_BT: Tensor) -> Tensor:
        x_BTD: Tensor = self.byte(bytes_BT)
        if self.pair is not None and self.triple is not None:
            pair_BT = bytes_BT + PAIR_KEY * _earlier(bytes_BT, 1)
            triple_BT = pair_BT + TRIPLE_KEY * _earlier(bytes_BT, 2)
            x_BTD = x_BTD + self.pair(self._row(pair_BT)) + self.triple(self._row(triple_BT))
        embedded_BTD: Tensor = self.dropout(x_BTD)
        return embedded_BTD

    def _row(self, ngram_BT: Tensor) -> Tensor:
        return ((ngram_BT * MIX_KEY) >> HASH_SHIFT) % self.rows


class Block(nn.Module):
    """Attention, then a position-wise network, each added to the residual stream."""

    def __init__(self, options: Options, rotary: Rotary) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(options.width)
        self.attention = Attention(options, rotary)
        self.expand_norm = nn.RMSNorm(options.width)
        self.expand = nn.Linear(options.width, 4 * options.width, bias=False)
        self.contract = _zero_linear(4 * options.width, options.width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.dropout(self.attention(self.attention_norm(x_BTD)))
        hidden = F.relu(self.expand(self.expand_norm(x_BTD))).square()
        mixed_BTD: Tensor = x_BTD + self.dropout(self.contract(hidden))
        return mixed_BTD


class Attention(nn.Module):
    """Causal multi-head self-attention with rotary positions and normed queries and keys."""

    def __init__(self, options: Options, rotary: Rotary) -> None:
        super().__init__()
        self.heads = options.heads
        self.rotary = rotary
        self.project = nn.Linear(options.width, 3 * options.width, bias=False)
        self.mix = _zero_linear(options.width, options.width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        parts_BTHE = self.project(x_BTD).unflatten(-1, (3, self.heads, -1)).unbind(2)
        query_BHTE, key_BHTE, value_BHTE = (part.transpose(1, 2) for part in parts_BTHE)
        mixed_BHTE = _attend(self.rotary(_normed(query_BHTE)), self.rotary(_normed(key_BHTE)), value_BHTE)
        mixed_BTD: Tensor = self.mix(mixed_BHTE.transpose(1, 2).flatten(2))
        return mixed_BTD


class Rotary(nn.Module):
    """Turns each pair of dimensions by an angle that grows with the position; each pair at its own pace."""

    cosine_TE: Tensor
    sine_TE: Tensor

    def __init__(self, options: Options) -> None:
        super().__init__()
        width = options.width // options.heads
        frequency_E = ROTARY_BASE ** -(torch.arange(0, width, 2) / width)
        angle_TE = torch.outer(torch.arange(options.context), frequency_E)
        self.register_buffer("cosine_TE", angle_TE.cos(), persistent=False)
        self.register_buffer("sine_TE", angle_TE.sin(), persistent=False)

    def forward(self, x_BHTE: Tensor) -> Tensor:
        length = x_BHTE.shape[2]
        cosine, sine = self.cosine_TE[:length].to(x_BHTE.dtype), self.sine_TE[:length].to(x_BHTE.dtype)
        left, right = x_BHTE.chunk(2, dim=-1)
        return torch.cat((left * cosine - right * sine, right * cosine + left * sine), dim=-1)


def _attend(query_BHTE: Tensor, key_BHTE: Tensor, value_BHTE: Tensor) -> Tensor:
    """Causal attention: torch's fused kernel, save on the CPU in bfloat16.

    There the kernel of torch 2.13 takes 5.1 ms forward and backward at (8, 3, 128, 64) on two cores with
    avx512_bf16, the two products written out 1.4 ms; in float32 the two are equal.
    """
    if query_BHTE.device.type != "cpu" or query_BHTE.dtype is not torch.bfloat16:
        return F.scaled_dot_product_attention(query_BHTE, key_BHTE, value_BHTE, is_causal=True)
    length, width = query_BHTE.shape[-2:]
    is_future_TT = torch.ones(length, length, dtype=torch.bool).triu(1)
    scores_BHTT = query_BHTE @ key_BHTE.transpose(-1, -2) * width**-0.5
    weights_BHTT = scores_BHTT.masked_fill(is_future_TT, -torch.inf).softmax(-1)
    mixed_BHTE: Tensor = weights_BHTT.to(value_BHTE.dtype) @ value_BHTE
    return mixed_BHTE


def _earlier(bytes_BT: Tensor, distance: int) -> Tensor:
    """The byte `distance` positions before each; 0 before the first."""
    return F.pad(bytes_BT, (distance, 0))[:, : bytes_BT.shape[1]]


def _normed(x_BHTE: Tensor) -> Tensor:
    """Vectors of unit root mean square: bounded scores, whatever the precision."""
    return F.rms_norm(x_BHTE, x_BHTE.shape[-1:])


def _embedding(rows: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(rows, width)
    nn.init.normal_(embedding.weight, std=EMBEDDING_STD)
    return embedding


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear map that starts at zero, so that each block starts as the identity (Goyal et al. 2017)."""
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.zeros_(linear.weight)
    return linear
