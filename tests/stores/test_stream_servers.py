"""Streams on their servers: Redis, a real one; Kafka, the mock cluster that librdkafka brings for tests.

The mock keeps little and has neither transactions nor administration, so nothing here rests on those.
"""

from __future__ import annotations

import pytest

from seatrial.stores.streams import open_answers
from seatrial.stores.streams_kafka import KafkaStream
from seatrial.stores.streams_redis import RedisStream
from seatrial.testing import StreamSuite
from tests.servers import kafka_cluster

pytestmark = pytest.mark.slow


class RedisServerOfStreams:
    field = b"row"

    def __init__(self, server):
        self._server = server

    def stream(self, name, group):
        return RedisStream(f"{self._server.address()}/{name}", group=group, dead_after=0.0)

    def answers(self, name):
        return open_answers(f"{self._server.address()}/{name}")

    def add(self, name, texts):
        for text in texts:
            self._server.ask("XADD", name, "*", "row", text)

    def refused(self, name):
        found = [fields for _, fields in self._server.ask("XRANGE", f"{name}:refused", "-", "+")]
        named = [dict(zip(fields[::2], fields[1::2], strict=True)) for fields in found]
        return [tuple(one[key].decode() for key in (b"row", b"id", b"reason")) for one in named]

    def answered(self, name):
        return [(fields[1].decode(), fields[3]) for _, fields in self._server.ask("XRANGE", name, "-", "+")]


class TestRedis(StreamSuite):
    @pytest.fixture
    def server(self, redis_server):
        return RedisServerOfStreams(redis_server)

    def test_two_consumers_of_a_group_share_and_each_group_has_all(self, server, opened):
        # with dead_after=0 whatever is in hand is taken over; both settle at once here
        super().test_two_consumers_of_a_group_share_and_each_group_has_all(server, opened)


class KafkaServerOfStreams:
    field = b"request"

    def __init__(self, brokers):
        self._brokers = brokers

    def address(self, name):
        return f"kafka://{self._brokers}/{name}?heartbeat.interval.ms=200&session.timeout.ms=6000&fetch.wait.max.ms=50"

    def stream(self, name, group):
        return KafkaStream(self.address(name), group=group, wait_seconds=5.0)

    def answers(self, name):
        return open_answers(self.address(name))

    def add(self, name, texts):
        answers = self.answers(name)
        answers.send([(text, text.encode()) for text in texts])
        answers.close()

    def _read(self, topic, number):
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self._brokers, "group.id": "reader", "auto.offset.reset": "earliest"})
        parts = consumer.list_topics(topic, timeout=5).topics[topic].partitions
        consumer.assign([TopicPartition(topic, one, 0) for one in parts])
        found = []
        while len(found) < number and (some := consumer.consume(number - len(found), timeout=5)):
            found += some
        consumer.close()
        return found

    def refused(self, name):
        found = []
        for message in self._read(f"{name}.refused", 1):
            headers = {key: value.decode() for key, value in message.headers()}
            found.append((message.value().decode(), headers["id"], headers["reason"]))
        return found

    def answered(self, name):
        return [(message.key().decode(), message.value()) for message in self._read(name, 3)]


@pytest.fixture(scope="module")
def brokers():
    with kafka_cluster() as found:
        yield found


class TestKafka(StreamSuite):
    @pytest.fixture
    def server(self, brokers):
        return KafkaServerOfStreams(brokers)


def test_a_cluster_that_is_away_is_told_and_asked_again():
    from seatrial.stores.streams import StreamUnavailable

    answers = open_answers("kafka://127.0.0.1:9/x", wait_seconds=0.5)
    with pytest.raises(StreamUnavailable):
        answers.send([("a", b"1")])
    answers.close()
    stream = KafkaStream("kafka://127.0.0.1:9/x", group="g", wait_seconds=0.5)
    with pytest.raises(StreamUnavailable):
        _ = [stream.read(1, wait_seconds=0.2) for _ in range(50)]
    stream.close()


@pytest.mark.parametrize("option", ["no.such.option=1", "session.timeout.ms=x"])
def test_options_that_the_driver_does_not_take_are_told(option):
    from seatrial.stores.streams import BadStreamAddress

    stream = KafkaStream(f"kafka://127.0.0.1:9/x?{option}", group="g", wait_seconds=0.5)
    with pytest.raises(BadStreamAddress, match="options"):
        stream.read(1, wait_seconds=0.1)
