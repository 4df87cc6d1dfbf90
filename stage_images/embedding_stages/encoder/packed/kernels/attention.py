"""Attention of short sequences that lie end to end.

A token sees its whole sequence; with CAUSAL none after itself, with WINDOW > 0 none further away than WINDOW tokens.
Both are known when a program is compiled: one without them has no trace of them, one with them skips the tiles that no
row of its own sees. With FAR > 0 the score of a pair of tokens has a summand of its head and of the distance between
them, which FAR and all beyond share: `bias` (HEADS, 2 * FAR + 1) float32 from distance -FAR on, log2(e) included.

The query heads that share a key head are stacked as rows of one tile: 64 rows are only 16 tokens of a group of four
heads, so a text of 135 tokens is computed as 144 by 160, and a key is read once for the four. The gradient of the keys
sums over the group by itself. Nothing is accumulated atomically: results do not depend on the order of programs.

With TURN a program knows the rotary positions, of which `cosine` and `sine` (most positions, SIZE / 2) float32 are the
angles: `forward` turns its queries by them, the backward programs turn the gradients of queries and keys back.

Layout: `qkv` (T, (HEADS + 2 * KEY_HEADS) * SIZE), rotary positions applied; `out` (T, HEADS * SIZE);
`lse` (T, HEADS) float32, base-2 logarithm of the softmax's denominator; `delta` (T, HEADS) float32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _query_rows(first, kv, end, GROUP: tl.constexpr, GROUP_ROWS: tl.constexpr, TOKENS: tl.constexpr):
    """Token, head and validity of each row of a tile of TOKENS tokens by GROUP_ROWS heads."""
    row = tl.arange(0, TOKENS * GROUP_ROWS)
    token = first + row // GROUP_ROWS
    member = row % GROUP_ROWS
    return token.to(tl.int64), kv * GROUP + member, (token < end) & (member < GROUP)


@triton.jit
def _keys_seen(first, begin, end, TOKENS: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """First, and last + 1, of the keys that some query of the TOKENS from `first` on sees."""
    low = begin
    high = end
    if WINDOW > 0:
        low = tl.maximum(begin, first - WINDOW)
    if CAUSAL:
        high = tl.minimum(end, first + TOKENS)
    elif WINDOW > 0:
        high = tl.minimum(end, first + TOKENS + WINDOW)
    return low, high


@triton.jit
def _queries_seeing(first, begin, end, KEYS: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """First, and last + 1, of the queries that see some key of the KEYS from `first` on."""
    low = begin
    high = end
    if CAUSAL:
        low = first
    elif WINDOW > 0:
        low = tl.maximum(begin, first - WINDOW)
    if WINDOW > 0:
        high = tl.minimum(end, first + KEYS + WINDOW)
    return low, high


@triton.jit
def _limited(seen, token, key, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """`seen`, without the pairs of query `token` and `key` that CAUSAL or WINDOW forbid; shapes that broadcast."""
    if CAUSAL:
        seen = seen & (key <= token)
    elif WINDOW > 0:
        seen = seen & (key <= token + WINDOW)
    if WINDOW > 0:
        seen = seen & (key >= token - WINDOW)
    return seen


@triton.jit
def _distance(token, key, FAR: tl.constexpr):
    """Place in a table of distances of a pair of query `token` and `key`; shapes that broadcast."""
    return (tl.minimum(tl.maximum(key - token, -FAR), FAR) + FAR).to(tl.int32)


@triton.jit
def _store_turned_back(rows, grad, position, inside, cosine, sine, SIZE: tl.constexpr):
    """Store `grad` (tile, SIZE), turned back by the angles of the positions, where `rows` point to."""
    pair = tl.arange(0, SIZE // 2)
    angle = position.to(tl.int64)[:, None] * (SIZE // 2) + pair[None, :]
    c = tl.load(cosine + angle, mask=inside[:, None], other=0.0)
    s = tl.load(sine + angle, mask=inside[:, None], other=0.0)
    first, second = tl.split(grad.reshape(grad.shape[0], 2, SIZE // 2).permute(0, 2, 1))
    place = rows[:, None] + pair[None, :]
    tl.store(place, (first * c + second * s).to(rows.dtype.element_ty), mask=inside[:, None])
    tl.store(place + SIZE // 2, (second * c - first * s).to(rows.dtype.element_ty), mask=inside[:, None])


@triton.jit(do_not_specialize=["tile_count"])
def forward(
    qkv, out, lse, tiles, tile_count, scale, bias, cosine, sine, gain, eps, HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr, GROUP_ROWS: tl.constexpr, SIZE: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    FAR: tl.constexpr, TOKENS: tl.constexpr, KEYS: tl.constexpr, TURN: tl.constexpr, NORM: tl.constexpr,
    PLUS_ONE: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one key head against the keys that it sees. scale includes log2(e).

    With TURN the queries get their rotary positions here, with NORM after an RMS norm times `gain` (1 + gain with
    PLUS_ONE); the keys have theirs already.
    """
    tile = tl.program_id(0)
    kv = tl.program_id(1)
    begin = tl.load(tiles + tile_count + tile)
    end = tl.load(tiles + 2 * tile_count + tile)
    stride: tl.constexpr = (HEADS + 2 * KEY_HEADS) * SIZE
    first = tl.load(tiles + tile)
    token, head, inside = _query_rows(first, kv, end, HEADS // KEY_HEADS, GROUP_ROWS, TOKENS)
    column = tl.arange(0, SIZE)
    q_place = qkv + (token * stride + head * SIZE)[:, None]
    q = tl.load(q_place + column[None, :], mask=inside[:, None], other=0.0)
    if TURN:
        other = tl.load(q_place + ((column + SIZE // 2) % SIZE)[None, :], mask=inside[:, None], other=0.0)
        angle = (token - begin)[:, None] * (SIZE // 2) + (column % (SIZE // 2))[None, :]
        c = tl.load(cosine + angle, mask=inside[:, None], other=0.0)
        s = tl.load(sine + angle, mask=inside[:, None], other=0.0) * tl.where(column < SIZE // 2, -1.0, 1.0)[None, :]
        if NORM:
            full = q.to(tl.float32)
            even = tl.rsqrt(tl.sum(full * full, axis=1) / SIZE + eps)[:, None]
            c *= even * (tl.load(gain + column).to(tl.float32) + PLUS_ONE)[None, :]
            s *= even * (tl.load(gain + (column + SIZE // 2) % SIZE).to(tl.float32) + PLUS_ONE)[None, :]
        q = (q.to(tl.float32) * c + other.to(tl.float32) * s).to(q.dtype)
    keys = qkv + (HEADS + kv) * SIZE
    values = keys + KEY_HEADS * SIZE
    total = tl.zeros((TOKENS * GROUP_ROWS, SIZE), tl.float32)
    # With a window a row may see none of the first keys; the difference of two infinities would be no number.
    top = tl.full((TOKENS * GROUP_ROWS,), float("-inf") if WINDOW == 0 else -1.0e30, tl.float32)
    mass = tl.zeros((TOKENS * GROUP_ROWS,), tl.float32)
    low, high = _keys_seen(first, begin, end, TOKENS, CAUSAL, WINDOW)
    for start in range(low, high, KEYS):
        key = start + tl.arange(0, KEYS)
        seen = key < end
        place = key.to(tl.int64) * stride
        k = tl.load(keys + place[None, :] + column[:, None], mask=seen[None, :], other=0.0)
        scores = tl.dot(q, k, input_precision="ieee") * scale
        if FAR > 0:
            far = _distance(token[:, None], key[None, :], FAR)
            scores += tl.load(bias + (head * (2 * FAR + 1))[:, None] + far, mask=inside[:, None], other=0.0)
        pairs = _limited(seen[None, :], token[:, None], key[None, :], CAUSAL, WINDOW)
        scores = tl.where(pairs, scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        weight = tl.exp2(scores - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        mass = mass * shrink + tl.sum(weight, axis=1)
        v = tl.load(values + place[:, None] + column[None, :], mask=seen[:, None], other=0.0)
        total = total * shrink[:, None] + tl.dot(weight.to(v.dtype), v, input_precision="ieee")
        top = new_top
    if WINDOW > 0:
        mass = tl.where(inside, mass, 1.0)  # rows beyond the text may see nothing
    total = total / mass[:, None]
    place = token * HEADS + head
    tl.store(out + (place * SIZE)[:, None] + column[None, :], total.to(out.dtype.element_ty), mask=inside[:, None])
    tl.store(lse + place, top + tl.log2(mass), mask=inside)


@triton.jit(do_not_specialize=["tile_count"])
def backward_queries(
    qkv, out, dout, lse, delta, dqkv, tiles, tile_count, scale, bias, bucket_of, sums, cosine, sine,
    HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, GROUP_ROWS: tl.constexpr, SIZE: tl.constexpr, CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr, FAR: tl.constexpr, BUCKETS: tl.constexpr, TOKENS: tl.constexpr, KEYS: tl.constexpr,
    TURN: tl.constexpr,
):  # fmt: skip
    """Gradient of a tile of queries; leaves delta = sum(out * dout) for `backward_keys`.

    With BUCKETS > 0, a power of 2, and one head of queries to one of keys: also the tile's sums of the gradients of the
    scores by the bucket of their distance, which `bucket_of` (2 * FAR + 1) int32 tells; `sums` (tiles, HEADS, BUCKETS).
    """
    tile = tl.program_id(0)
    kv = tl.program_id(1)
    begin = tl.load(tiles + tile_count + tile)
    end = tl.load(tiles + 2 * tile_count + tile)
    stride: tl.constexpr = (HEADS + 2 * KEY_HEADS) * SIZE
    first = tl.load(tiles + tile)
    token, head, inside = _query_rows(first, kv, end, HEADS // KEY_HEADS, GROUP_ROWS, TOKENS)
    column = tl.arange(0, SIZE)
    q_row = token * stride + head * SIZE
    q_place = q_row[:, None] + column[None, :]
    o_place = token * HEADS + head
    q = tl.load(qkv + q_place, mask=inside[:, None], other=0.0)
    do = tl.load(dout + (o_place * SIZE)[:, None] + column[None, :], mask=inside[:, None], other=0.0)
    o = tl.load(out + (o_place * SIZE)[:, None] + column[None, :], mask=inside[:, None], other=0.0)
    shift = tl.sum(o.to(tl.float32) * do.to(tl.float32), axis=1)
    tl.store(delta + o_place, shift, mask=inside)
    top = tl.load(lse + o_place, mask=inside, other=float("inf"))
    keys = qkv + (HEADS + kv) * SIZE
    values = keys + KEY_HEADS * SIZE
    dq = tl.zeros((TOKENS * GROUP_ROWS, SIZE), tl.float32)
    if BUCKETS > 0:
        bucket = tl.arange(0, BUCKETS)
        found = tl.zeros((BUCKETS,), tl.float32)
    low, high = _keys_seen(first, begin, end, TOKENS, CAUSAL, WINDOW)
    for start in range(low, high, KEYS):
        key = start + tl.arange(0, KEYS)
        seen = key < end
        place = key.to(tl.int64) * stride
        k = tl.load(keys + place[:, None] + column[None, :], mask=seen[:, None], other=0.0)
        v = tl.load(values + place[:, None] + column[None, :], mask=seen[:, None], other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        if FAR > 0:
            far = _distance(token[:, None], key[None, :], FAR)
            scores += tl.load(bias + (head * (2 * FAR + 1))[:, None] + far, mask=inside[:, None], other=0.0)
        weight = tl.exp2(scores - top[:, None])
        weight = tl.where(_limited(seen[None, :], token[:, None], key[None, :], CAUSAL, WINDOW), weight, 0.0)
        change = weight * (tl.dot(do, tl.trans(v), input_precision="ieee") - shift[:, None])
        dq += tl.dot(change.to(k.dtype), k, input_precision="ieee")
        if BUCKETS > 0:
            mine = tl.load(bucket_of + far)
            # Few buckets but near the diagonal, where a tile of both sides has them all.
            for number in range(tl.min(mine), tl.max(mine) + 1):
                total = tl.sum(tl.sum(tl.where(mine == number, change, 0.0), axis=1), axis=0)
                found += tl.where(bucket == number, total, 0.0)
    if BUCKETS > 0:
        tl.store(sums + (tile.to(tl.int64) * HEADS + kv) * BUCKETS + bucket, found)
    dq *= scale * 0.6931471805599453  # the scale without log2(e)
    if TURN:
        _store_turned_back(dqkv + q_row, dq, token - begin, inside, cosine, sine, SIZE)
    else:
        tl.store(dqkv + q_place, dq.to(dqkv.dtype.element_ty), mask=inside[:, None])


@triton.jit(do_not_specialize=["tile_count"])
def backward_keys(
    qkv, dout, lse, delta, dqkv, tiles, tile_count, scale, bias, cosine, sine, HEADS: tl.constexpr,
    KEY_HEADS: tl.constexpr, GROUP_ROWS: tl.constexpr, SIZE: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    FAR: tl.constexpr, TOKENS: tl.constexpr, KEYS: tl.constexpr, TURN: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of keys and values of one key head, over the queries of its group that see them."""
    tile = tl.program_id(0)
    kv = tl.program_id(1)
    first = tl.load(tiles + tile)
    begin = tl.load(tiles + tile_count + tile)
    end = tl.load(tiles + 2 * tile_count + tile)
    stride: tl.constexpr = (HEADS + 2 * KEY_HEADS) * SIZE
    column = tl.arange(0, SIZE)
    key = first + tl.arange(0, KEYS)
    seen = key < end
    k_row = key.to(tl.int64) * stride + (HEADS + kv) * SIZE
    k_place = k_row[:, None] + column[None, :]
    v_place = k_place + KEY_HEADS * SIZE
    k = tl.load(qkv + k_place, mask=seen[:, None], other=0.0)
    v = tl.load(qkv + v_place, mask=seen[:, None], other=0.0)
    dk = tl.zeros((KEYS, SIZE), tl.float32)
    dv = tl.zeros((KEYS, SIZE), tl.float32)
    low, high = _queries_seeing(first, begin, end, KEYS, CAUSAL, WINDOW)
    for start in range(low, high, TOKENS):
        token, head, inside = _query_rows(start, kv, end, HEADS // KEY_HEADS, GROUP_ROWS, TOKENS)
        o_place = token * HEADS + head
        q = tl.load(qkv + (token * stride + head * SIZE)[:, None] + column[None, :], mask=inside[:, None], other=0.0)
        do = tl.load(dout + (o_place * SIZE)[:, None] + column[None, :], mask=inside[:, None], other=0.0)
        top = tl.load(lse + o_place, mask=inside, other=float("inf"))
        shift = tl.load(delta + o_place, mask=inside, other=0.0)
        # Rows outside have lse = inf, so their weight is 0.
        scores = tl.dot(k, tl.trans(q), input_precision="ieee") * scale
        if FAR > 0:
            far = _distance(token[None, :], key[:, None], FAR)
            scores += tl.load(bias + (head * (2 * FAR + 1))[None, :] + far, mask=inside[None, :], other=0.0)
        weight = tl.exp2(scores - top[None, :])
        if CAUSAL or WINDOW > 0:
            weight = tl.where(_limited(inside[None, :], token[None, :], key[:, None], CAUSAL, WINDOW), weight, 0.0)
        dv += tl.dot(weight.to(do.dtype), do, input_precision="ieee")
        change = weight * (tl.dot(v, tl.trans(do), input_precision="ieee") - shift[None, :])
        dk += tl.dot(change.to(q.dtype), q, input_precision="ieee")
    dk *= scale * 0.6931471805599453
    if TURN:
        _store_turned_back(dqkv + k_row, dk, key - begin, seen, cosine, sine, SIZE)
    else:
        tl.store(dqkv + k_place, dk.to(dqkv.dtype.element_ty), mask=seen[:, None])
    tl.store(dqkv + v_place, dv.to(dqkv.dtype.element_ty), mask=seen[:, None])
