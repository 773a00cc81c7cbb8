"""Paired: which answer of the live release and which of its shadow were to the same request?

Both are logged with the caller's request id, and with a prediction id of their own that rises with time; a request may
ask for several rows. A request of which one of the two lacks a row is no pair: which one is missing cannot be told.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Places = NDArray[np.int64]


def paired(live: pa.Table, shadow: pa.Table) -> tuple[Places, Places]:
    """The places of paired rows in both tables, in the order of `live`: two arrays of one length.

    live, shadow: with request_id and prediction_id. Rows without a request id belong to no pair.
    """
    named = [_named(one) for one in (live, shadow)]
    together = pc.dictionary_encode(pa.chunked_array([*named[0].chunks, *named[1].chunks], pa.string()))
    codes = _codes(together)
    of_live, of_shadow = codes[: live.num_rows], codes[live.num_rows :]
    most = int(codes.max(initial=-1)) + 1
    counts = [np.bincount(one[one >= 0], minlength=most) for one in (of_live, of_shadow)]
    whole = (counts[0] == counts[1]) & (counts[0] > 0)
    ordered = [_ordered(table, codes, whole) for table, codes in ((live, of_live), (shadow, of_shadow))]
    back = np.argsort(ordered[0], kind="stable")
    return ordered[0][back], ordered[1][back]


def _named(table: pa.Table) -> pa.ChunkedArray:
    return pa.chunked_array([table["request_id"].cast(pa.string()).combine_chunks()], pa.string())


def _codes(together: Any) -> Places:
    parts = [pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False) for chunk in together.chunks]
    return np.concatenate([np.empty(0, np.int64), *parts]).astype(np.int64)


def _ordered(table: pa.Table, codes: Places, whole: NDArray[np.bool_]) -> Places:
    """The places of the rows of whole requests, by request and then by prediction id."""
    usable = np.zeros(codes.size, dtype=bool)
    usable[codes >= 0] = whole[codes[codes >= 0]]
    by_id = np.empty(codes.size, np.int64)
    by_id[pc.sort_indices(table["prediction_id"]).to_numpy()] = np.arange(codes.size)
    found = np.lexsort((by_id, codes))
    return found[usable[found]]
