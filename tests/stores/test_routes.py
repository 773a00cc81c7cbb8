"""Route files: what is written is read back, and only what is whole, trusted and sound."""

from __future__ import annotations

import pytest

from seatrial.stores.routes import (
    Arm,
    RouteDamaged,
    RouteFile,
    RouteNotTrusted,
    RouteStore,
    RouteTooNew,
    read_route,
    write_route,
)

ROUTE = RouteFile("late", 3, "late", "salt", (Arm("a", "rel_1", 9_999, "b1"), Arm("b", "rel_2", 1, "b2")), "tail")


def sign(data: bytes) -> bytes:
    return data[::-1]


def verify(data: bytes, signature: bytes) -> bool:
    return signature == data[::-1]


def changed(**changes) -> RouteFile:
    return RouteFile(**{name: getattr(ROUTE, name) for name in ROUTE.__struct_fields__} | changes)


def test_a_route_comes_back_as_it_was_written(tmp_path):
    store = RouteStore(tmp_path)
    assert store.read("late", verify) is None
    assert store.write(ROUTE, sign, verify)
    assert store.read("late", verify) == ROUTE
    assert store.names() == ["late"]


def test_any_changed_byte_is_refused():
    data = write_route(ROUTE, sign)
    for position in range(len(data) - 1):
        forged = bytearray(data)
        forged[position] ^= 1
        with pytest.raises((RouteDamaged, RouteNotTrusted, RouteTooNew)):
            read_route("late", bytes(forged), verify)


def test_every_truncation_is_refused():
    data = write_route(ROUTE, sign).rstrip()
    for length in range(len(data)):
        with pytest.raises((RouteDamaged, RouteTooNew)):
            read_route("late", data[:length], verify)


def test_a_newer_format_is_refused_by_its_number():
    with pytest.raises(RouteTooNew, match="format 4"):
        read_route("late", write_route(ROUTE, sign).replace(b'"format":1', b'"format":4', 1), verify)


def test_a_route_of_another_deployment_is_refused():
    with pytest.raises(RouteDamaged, match="another deployment"):
        read_route("fare", write_route(ROUTE, sign), verify)


@pytest.mark.parametrize(
    "bad",
    [
        {"arms": ()},
        {"arms": (Arm("a", "rel_1", 9_999, "b"),)},
        {"arms": (Arm("a", "rel_1", 10_001, "b"), Arm("b", "rel_1", -1, "b"))},
        {"arms": (Arm("a", "rel_1", 5_000, "b"), Arm("a", "rel_2", 5_000, "b"))},
        {"generation": 0},
    ],
)
def test_a_route_that_is_not_sound_is_neither_written_nor_read(bad):
    with pytest.raises(RouteDamaged):
        write_route(changed(**bad), sign)


def test_a_generation_never_goes_back(tmp_path):
    store = RouteStore(tmp_path)
    store.write(ROUTE, sign, verify)
    assert not store.write(changed(generation=2), sign, verify)
    assert not store.write(changed(salt="other"), sign, verify)
    assert store.read("late", verify) == ROUTE
    assert store.write(changed(generation=4), sign, verify)


def test_a_name_never_leaves_the_folder(tmp_path):
    store = RouteStore(tmp_path / "routes")
    store.write(changed(deployment="../late"), sign, verify)
    assert [path.name for path in (tmp_path / "routes").glob("*.json")] == ["..%2Flate.json"]
    assert store.names() == ["../late"]


@pytest.mark.parametrize("beside", [{"cache": 100}, {"defaults": {"v__a": 0.5, "v__b": None, "v__c": "x"}}])
def test_a_route_that_older_versions_would_not_follow_has_a_newer_format(beside):
    route = changed(on_store_failure="missing", **beside)
    data = write_route(route, sign)
    assert data.startswith(b'{"format":2')
    assert read_route("late", data, verify) == route
    with pytest.raises(RouteDamaged):
        read_route("late", data.replace(b'"format":2', b'"format":1', 1), verify)
    with pytest.raises(RouteDamaged):
        read_route("late", write_route(ROUTE, sign).replace(b'"format":1', b'"format":2', 1), verify)


def test_the_fields_that_other_releases_want_are_of_a_format_of_their_own():
    route = changed(sent={"distance": "float", "wind": "float"}, cache=10)
    data = write_route(route, sign)
    assert data.startswith(b'{"format":3')
    assert read_route("late", data, verify) == route
    with pytest.raises(RouteDamaged):
        read_route("late", data.replace(b'"format":3', b'"format":2', 1), verify)


def test_a_route_without_them_is_written_as_before():
    data = write_route(ROUTE, sign)
    assert data.startswith(b'{"format":1')
    assert b"cache" not in data
    assert b"defaults" not in data
    assert b"sent" not in data


@pytest.mark.parametrize("cache", [-1, 10**7])
def test_a_cache_of_no_sensible_size_is_no_route(cache):
    with pytest.raises(RouteDamaged):
        write_route(changed(cache=cache), sign)
