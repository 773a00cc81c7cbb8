"""Factories of what monitoring looks at: samples with a score, a label and a few inputs."""

from __future__ import annotations

import tracemalloc
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from seatrial.core.clock import parse_time, to_us
from seatrial.core.windows import Window
from seatrial.monitoring.rows.labels import LabelCounts
from seatrial.monitoring.rows.sample import Sample

UTC_US = pa.timestamp("us", tz="UTC")
DAY_US = 86_400_000_000
START_US = to_us(parse_time("2013-04-01T00:00:00Z"))


def week(number=0, days=7):
    """The window of `days` days from the `number`th week of April 2013 on."""
    start = START_US + number * 7 * DAY_US
    return Window(start, start + days * DAY_US)


def instants(us):
    return pa.array(us, pa.int64()).cast(UTC_US)


def a_sample(scores, labels=None, *, at_us=None, known_us=None, task="binary", model="late", **columns):
    """Predictions spread evenly over the first week, labels known a minute later; NaN is none."""
    scores = np.asarray(scores, dtype=np.float64)
    count = scores.size
    labels = np.full(count, np.nan) if labels is None else np.asarray(labels, dtype=np.float64)
    if at_us is None:
        at_us = START_US + np.arange(count) * (7 * DAY_US // max(count, 1))
    at_us = np.asarray(at_us, dtype=np.int64)
    known_us = at_us + 60_000_000 if known_us is None else np.asarray(known_us, dtype=np.int64)
    known = [int(us) if np.isfinite(label) else None for us, label in zip(known_us, labels, strict=True)]
    plain = {
        "prediction_id": pa.array([f"p-{place:06d}" for place in range(count)], pa.string()),
        "request_id": pa.array([f"r-{place:06d}" for place in range(count)], pa.string()),
        "at": instants(at_us),
        "release": pa.array(["rel_1"] * count, pa.string()),
        "version": pa.array(["1"] * count, pa.string()),
        "score": pa.array(scores, from_pandas=True),
        "latency_ms": pa.array([2.0] * count, pa.float64()),
        "degraded": pa.array([False] * count, pa.bool_()),
        "label": pa.array(labels, from_pandas=True),
        "label_known_at": instants(known),
    }
    rows = pa.table(plain | columns)
    return Sample(model, task, rows, LabelCounts(matched=int(np.isfinite(labels).sum()), predictions=count))


class Taken:
    """Bytes at the peak, and what of Arrow's was not given back."""

    numpy = arrow = arrow_after = 0


@contextmanager
def watched_memory():
    """What is taken meanwhile, beside what there was."""
    pool, taken = pa.proxy_memory_pool(before := pa.default_memory_pool()), Taken()
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        yield taken
        taken.numpy, taken.arrow = tracemalloc.get_traced_memory()[1], pool.max_memory()
        taken.arrow_after = pool.bytes_allocated()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


def calibrated(count=2100, rate=0.3, *, seed=0, **given):
    """Scores around `rate` and labels that come true as often as they say."""
    random = np.random.default_rng(seed)
    scores = np.clip(random.beta(6 * rate, 6 * (1 - rate), count), 0.01, 0.99)
    return a_sample(scores, (random.random(count) < scores).astype(float), **given)


CLASSES = ("early", "late", "on time")


def of_classes(count=2000, *, seed=0, labelled=True, sure=3.0):
    """Predictions of three classes that come true as often as they say, spread over the first week."""
    random = np.random.default_rng(seed)
    raw = random.random((count, 3)) ** sure
    table = raw / raw.sum(axis=1, keepdims=True)
    place = (random.random(count)[:, None] > np.cumsum(table, axis=1)).sum(axis=1)
    names = np.array(CLASSES)
    said, happened = names[table.argmax(axis=1)], names[np.minimum(place, 2)]
    right = (said == happened).astype(float) if labelled else np.full(count, np.nan)
    columns = {f"probability_{name}": pa.array(table[:, number]) for number, name in enumerate(CLASSES)}
    columns |= {
        "predicted_class": pa.array(said.tolist(), pa.string()),
        "label_class": pa.array(happened.tolist() if labelled else [None] * count, pa.string()),
    }
    return a_sample(table.max(axis=1), right, task="multiclass", **columns)
