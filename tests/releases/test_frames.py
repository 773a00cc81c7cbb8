import socket
import threading

import numpy as np
import pytest

from seatrial.core.signature import NamedRows
from seatrial.releases import frames


@pytest.fixture
def ends():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


@pytest.mark.parametrize(
    "table",
    [np.zeros((3, 4), np.float32), np.full((1, 1), np.nan, np.float32)],
    ids=["many", "missing"],
)
def test_rows_come_out_as_they_went_in(ends, table):
    frames.send(ends[0], frames.ROWS, *frames.matrix(table))
    kind, body = frames.receive(ends[1])
    assert kind == frames.ROWS
    np.testing.assert_array_equal(frames.values(body, "<f4"), table)


@pytest.mark.parametrize("scores", [np.arange(3.0), np.arange(6.0).reshape(3, 2)])
def test_scores_come_out_as_they_went_in(ends, scores):
    frames.send(ends[0], frames.SCORES, *frames.matrix(scores))
    got = frames.values(frames.receive(ends[1])[1], "<f8")
    np.testing.assert_array_equal(got, scores)
    assert got.dtype == np.float64


def test_columns_by_name_keep_their_order_strings_and_gaps(ends):
    rows = NamedRows(
        {
            "size": np.array([1.5, np.nan], np.float32),
            "kind": np.array(["été", None], object),
            "age": np.array([1, 2], np.float32),
        }
    )
    frames.send(ends[0], frames.COLUMNS, frames.columns(rows))
    got = frames.named(frames.receive(ends[1])[1])
    assert list(got.columns) == ["size", "kind", "age"]
    assert got.columns["kind"].tolist() == ["été", None]
    np.testing.assert_array_equal(got.columns["size"], rows.columns["size"])
    assert got.columns["size"].dtype == np.float32


def test_more_bytes_than_a_socket_holds_arrive_whole(ends):
    table = np.random.default_rng(0).normal(size=(200_000, 10)).astype(np.float32)
    sender = threading.Thread(target=frames.send, args=(ends[0], frames.ROWS, *frames.matrix(table)))
    sender.start()
    np.testing.assert_array_equal(frames.values(frames.receive(ends[1])[1], "<f4"), table)
    sender.join()


def test_an_end_that_is_gone_is_told(ends):
    ends[0].sendall(b"\x01\x00")
    ends[0].close()
    with pytest.raises(frames.Broken):
        frames.receive(ends[1])
    with pytest.raises(frames.Broken):
        frames.send(ends[1], frames.ROWS, b"x")


@pytest.mark.parametrize("body", [b"", b"\0" * 15, frames.matrix(np.zeros((3, 4), np.float32))[0] + b"\0" * 8])
def test_a_table_that_is_no_table_is_refused(body):
    with pytest.raises((frames.Broken, ValueError)):
        frames.values(bytearray(body), "<f4")


def test_a_frame_that_claims_too_much_is_refused_before_memory_is_taken(ends):
    ends[0].sendall(b"\x04\x00\x00\x00" + b"\xff" * 8)
    with pytest.raises(frames.Broken, match="bytes"):
        frames.receive(ends[1])


def test_a_deadline_ends_the_waiting(ends):
    with pytest.raises(TimeoutError):
        frames.receive(ends[1], remaining=lambda: 0.05)
