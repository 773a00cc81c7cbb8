"""For your own tests: a clock that you move, and the conformance suites of the stores.

A suite is a class of tests; inherit it, give the one fixture that it names, and every fact that a store must satisfy
is checked for yours. Each name is loaded when it is first used; only the suites need pytest.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from seatrial.testing.clock import FakeClock as FakeClock
    from seatrial.testing.metadata_suite import MetadataSuite as MetadataSuite
    from seatrial.testing.object_suite import ObjectSuite as ObjectSuite
    from seatrial.testing.online_suite import OnlineStoreSuite as OnlineStoreSuite
    from seatrial.testing.prediction_log_suite import PredictionLogSuite as PredictionLogSuite
    from seatrial.testing.stream_suite import StreamSuite as StreamSuite

_HOME = {
    "FakeClock": "seatrial.testing.clock",
    "MetadataSuite": "seatrial.testing.metadata_suite",
    "ObjectSuite": "seatrial.testing.object_suite",
    "OnlineStoreSuite": "seatrial.testing.online_suite",
    "PredictionLogSuite": "seatrial.testing.prediction_log_suite",
    "StreamSuite": "seatrial.testing.stream_suite",
}

__all__ = ["FakeClock", "MetadataSuite", "ObjectSuite", "OnlineStoreSuite", "PredictionLogSuite", "StreamSuite"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
