"""Unshipped: how many predictions would be lost with this machine's disk?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from seatrial.core.errors import SeatrialError
from seatrial.stores.prediction_log import PredictionLog


class Unshipped(Collector):
    """The gauge `seatrial_unshipped_records`, counted when it is asked; absent while the log cannot be read."""

    def __init__(self, log: PredictionLog) -> None:
        self._log = log

    def collect(self) -> Iterator[Metric]:
        with suppress(SeatrialError, OSError):
            yield GaugeMetricFamily(
                "seatrial_unshipped_records",
                "Records of the prediction log that the object store does not have yet.",
                value=self._log.unshipped(),
            )
