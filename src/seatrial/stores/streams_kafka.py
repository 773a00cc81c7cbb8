"""Streams on Kafka: a consumer group over one topic; what is refused goes to the topic `TOPIC.refused`.

Offsets are committed by `settle` only. An entry's id is its partition, offset and timestamp (milliseconds), so that a
topic that is made anew gives other ids. A commit that meets a rebalance is tried again as long as the partition is
ours; when it is not, its new owner is given the entries again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

from seatrial.core.clock import monotonic
from seatrial.core.errors import UsageError
from seatrial.stores.streams import BadStreamAddress, Entry, StreamRefused, StreamUnavailable

VALUE, KEY = b"request", b"key"
DOUBTFUL = 500
"""Entries of a partition that may have been given to another before: so many one consumer has in hand at most."""
COMMIT_SECONDS = 10.0
OF_CONSUMERS = frozenset(
    "group.id auto.offset.reset session.timeout.ms enable.auto.commit enable.auto.offset.store fetch.wait.max.ms "
    "heartbeat.interval.ms".split()
)
SECRETS = ("password", "key", "secret", "token")


class KafkaExtraMissing(UsageError):
    """Kafka is asked for, and its driver is not installed."""

    code = "kafka.extra_missing"


class KafkaStream:
    """One consumer of a group. See `open_stream` for the address. wait_seconds: for the broker's answers."""

    def __init__(self, address: str, *, group: str, wait_seconds: float = 10.0) -> None:
        _driver()
        self._config, self.name, self._shown = _divided(address)
        self._topic = self.name
        self._config = {
            "group.id": group,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 10_000,
            "fetch.wait.max.ms": 100,  # what else is asked waits behind it
            **self._config,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
        }
        self._wait_seconds = wait_seconds
        self._consumer: Any = None
        self._refusals: KafkaAnswers | None = None
        self._in_hand: dict[int, int] = {}  # of each partition the first offset that was read and not settled
        self._doubtful: dict[int, int] = {}
        self._ready: list[Any] = []  # messages that came while a commit waited
        self._failed = ""
        self._back = False  # whether what is in hand is to be read again

    def __repr__(self) -> str:
        return f"KafkaStream({self._shown})"

    def read(self, most: int, *, wait_seconds: float) -> list[Entry]:
        """The next entries; see `Stream`."""
        kafka = _driver()
        consumer = self._joined()
        if self._back:
            self._go_back()
        try:
            fresh = consumer.consume(
                num_messages=max(1, most - len(self._ready)), timeout=0.0 if self._ready else max(wait_seconds, 0.05)
            )
        except kafka.KafkaException as error:
            raise self._explained(error.args[0]) from None
        messages, self._ready = [*self._ready, *fresh], []
        ours = {one.partition for one in consumer.assignment()}
        good = [one for one in messages if one.error() is None and one.partition() in ours]  # not taken away meanwhile
        entries = [self._entry(one) for one in good]
        for message in messages:
            wrong = message.error()
            if wrong is not None and wrong.code() != kafka.KafkaError.UNKNOWN_TOPIC_OR_PART:  # nobody has written to it
                raise self._explained(wrong)
        if not entries and self._failed:
            failed, self._failed, self._back = self._failed, "", True
            raise StreamUnavailable(f"the brokers of {self._shown} do not answer: {failed}.", next="Try again.")
        self._failed = ""
        return entries

    def keep(self, entries: Sequence[Entry]) -> None:
        """Stay in the group: a consumer that does not ask for long is taken for dead."""
        if self._consumer is not None and entries:
            self._wait(0.0)

    def settle(self, done: Sequence[Entry], refused: Sequence[tuple[Entry, str]]) -> None:
        """Commit the offsets behind these entries; before that the refused are in `TOPIC.refused`.

        Everything that was read is to be settled together: an offset stands for all before it.
        """
        if refused:
            if self._refusals is None:
                self._refusals = KafkaAnswers.of(self._config, f"{self._topic}.refused", self._wait_seconds)
            self._back = True  # should this fail
            self._refusals.put(
                (entry.fields.get(VALUE), entry.fields.get(KEY), {"id": entry.id, "reason": reason})
                for entry, reason in refused
            )
            self._back = False
        behind: dict[int, int] = {}
        for entry in [*done, *(entry for entry, _ in refused)]:
            partition, offset, _ = map(int, entry.id.split("-"))
            behind[partition] = max(behind.get(partition, 0), offset + 1)
        self._commit(behind)

    def pending(self) -> int:
        """Number of entries that are not settled: Kafka does not tell which of them somebody has in hand."""
        return self.lag() or 0

    def lag(self) -> int | None:
        """Number of entries that are not settled."""
        kafka = _driver()
        consumer = self._joined()
        try:
            known = consumer.list_topics(self._topic, timeout=self._wait_seconds).topics[self._topic].partitions
            asked = [kafka.TopicPartition(self._topic, number) for number in known]
            committed = consumer.committed(asked, timeout=self._wait_seconds)
            lag = 0
            for one in committed:
                low, high = consumer.get_watermark_offsets(one, timeout=self._wait_seconds)
                lag += max(0, high - max(low, one.offset))
        except kafka.KafkaException as error:
            raise self._explained(error.args[0]) from None
        return lag

    def close(self) -> None:
        """Leave the group. What is in hand is given to another."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        if self._refusals is not None:
            self._refusals.close()
            self._refusals = None
        self._in_hand.clear()
        self._ready.clear()

    def _joined(self) -> Any:
        if self._consumer is None:
            kafka = _driver()
            try:
                self._consumer = kafka.Consumer({**self._config, "error_cb": self._hear}, logger=_silent())
            except (kafka.KafkaException, ValueError, TypeError) as error:
                raise _bad_options(self._shown, error) from None
            self._consumer.subscribe(
                [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
            )
        return self._consumer

    def _assigned(self, _consumer: Any, partitions: Sequence[Any]) -> None:
        for one in partitions:
            self._doubtful[one.partition] = DOUBTFUL

    def _revoked(self, _consumer: Any, partitions: Sequence[Any]) -> None:
        gone = {one.partition for one in partitions}
        for partition in gone:
            self._in_hand.pop(partition, None)
            self._doubtful.pop(partition, None)
        self._ready = [one for one in self._ready if one.partition() not in gone]

    def _hear(self, error: Any) -> None:
        if error.code() == _driver().KafkaError._ALL_BROKERS_DOWN:
            self._failed = str(error.str())

    def _entry(self, message: Any) -> Entry:
        partition, offset = message.partition(), message.offset()
        self._in_hand.setdefault(partition, offset)
        doubtful = self._doubtful.get(partition, 0)
        self._doubtful[partition] = max(0, doubtful - 1)
        value, key = message.value(), message.key()
        fields = {VALUE: value} if value is not None else {}
        if key is not None:
            fields[KEY] = key
        return Entry(f"{partition}-{offset}-{max(0, message.timestamp()[1])}", fields, 2 if doubtful else 1)

    def _go_back(self) -> None:
        """Read again what was in hand when something failed."""
        kafka = _driver()
        for partition, offset in list(self._in_hand.items()):
            self._ready = [one for one in self._ready if one.partition() != partition]
            try:
                self._consumer.seek(kafka.TopicPartition(self._topic, partition, offset))
            except kafka.KafkaException as error:
                raise self._explained(error.args[0]) from None
            self._doubtful[partition] = DOUBTFUL
        self._in_hand.clear()
        self._back = False

    def _commit(self, behind: dict[int, int]) -> None:
        kafka = _driver()
        codes = kafka.KafkaError
        again = (codes.REBALANCE_IN_PROGRESS, codes.ILLEGAL_GENERATION, codes.UNKNOWN_MEMBER_ID, codes._ASSIGNMENT_LOST)
        until = monotonic() + COMMIT_SECONDS
        while ours := {one: offset for one, offset in behind.items() if one in self._in_hand}:
            try:
                offsets = [kafka.TopicPartition(self._topic, one, offset) for one, offset in ours.items()]
                failed = [one.error for one in self._consumer.commit(offsets=offsets, asynchronous=False) if one.error]
                if failed:
                    raise kafka.KafkaException(failed[0])
            except kafka.KafkaException as error:
                if error.args[0].code() not in again or monotonic() > until:
                    raise self._explained(error.args[0]) from None
                self._wait(0.1)
                continue
            for one in ours:
                del self._in_hand[one]
            return

    def _wait(self, seconds: float) -> None:
        """Let the driver work for the group, and wait; a message that comes meanwhile is kept.

        Partitions are not paused for it: one that is taken away and given back meanwhile would stay paused.
        """
        if len(self._ready) < DOUBTFUL:
            message = self._consumer.poll(0)
            if message is not None and message.error() is None:
                self._ready.append(message)
        time.sleep(seconds)

    def _explained(self, error: Any) -> StreamUnavailable | StreamRefused:
        self._back = True
        return _explained(error, self._shown)


class KafkaAnswers:
    """Appends answers to a topic: the answer is the message's value, its id the message's key."""

    def __init__(self, address: str, *, wait_seconds: float = 10.0) -> None:
        _driver()
        self._config, self._topic, self._shown = _divided(address)
        self._wait_seconds = wait_seconds
        self._producer: Any = None

    @classmethod
    def of(cls, config: dict[str, Any], topic: str, wait_seconds: float) -> KafkaAnswers:
        """What writes to another topic of the same brokers."""
        made = cls.__new__(cls)
        made._config = {name: value for name, value in config.items() if name not in OF_CONSUMERS}
        made._topic, made._shown = topic, f"topic '{topic}'"
        made._wait_seconds, made._producer = wait_seconds, None
        return made

    def send(self, answers: Sequence[tuple[str, bytes]]) -> None:
        """Append answers; every in-sync replica has them when this returns."""
        self.put((said, id.encode(), {}) for id, said in answers)

    def put(self, messages: Any) -> None:
        """Append messages: (value, key, headers)."""
        kafka = _driver()
        failed: list[Any] = []
        if self._producer is None:
            own = {"enable.idempotence": True, "acks": "all", "linger.ms": 5}
            own["message.timeout.ms"] = int(self._wait_seconds * 1000)
            try:
                self._producer = kafka.Producer({**self._config, **own}, logger=_silent())
            except (kafka.KafkaException, ValueError, TypeError) as error:
                raise _bad_options(self._shown, error) from None

        def told(error: Any, _message: Any) -> None:
            if error is not None:
                failed.append(error)

        count = 0
        for value, key, headers in messages:
            while True:
                try:
                    self._producer.produce(self._topic, value=value, key=key, headers=headers or None, on_delivery=told)
                    break
                except BufferError:
                    self._producer.poll(0.1)
                except kafka.KafkaException as error:
                    raise _explained(error.args[0], self._shown) from None
            count += 1
        left = self._producer.flush(self._wait_seconds + 1.0)
        if failed:
            raise _explained(failed[0], self._shown)
        if left:
            self.close()
            raise StreamUnavailable(
                f"{left} of {count} messages were not taken by {self._shown} within {self._wait_seconds:g} s.",
                next="Try again.",
            )

    def close(self) -> None:
        """Let go of what was not taken."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(1.0)
            self._producer = None


def _driver() -> Any:
    try:
        import confluent_kafka
    except ModuleNotFoundError as error:
        raise KafkaExtraMissing(
            f"Kafka needs the package '{error.name}', which is not installed.",
            state="Nothing was opened.",
            next="Install seatrial with its extra: pip install 'seatrial[kafka]'.",
        ) from None
    return confluent_kafka


def _silent() -> Any:
    """What the driver says besides is not for users; what matters comes as an error."""
    import logging

    logger = logging.getLogger("seatrial.kafka")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


def _explained(error: Any, shown: str) -> StreamUnavailable | StreamRefused:
    codes = _driver().KafkaError
    refusals = (codes._AUTHENTICATION, codes.TOPIC_AUTHORIZATION_FAILED, codes.GROUP_AUTHORIZATION_FAILED)
    if error.code() in (*refusals, codes.SASL_AUTHENTICATION_FAILED):
        return StreamRefused(
            f"the brokers of {shown} do not let this user in: {error.name()}.",
            next="Correct user and password in the address (or the variable it names), or the user's rights.",
        )
    return StreamUnavailable(
        f"the brokers of {shown} did not do what they were asked: {error.name()}.",
        state="What was not committed is delivered again.",
        next="Try again.",
    )


def _divided(address: str) -> tuple[dict[str, Any], str, str]:
    """The driver's options, the topic, and how the stream is shown. Raises BadStreamAddress."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise BadStreamAddress(
                f"the address of a stream names the variable {found[1]}, which is not set.",
                next=f"Set {found[1]} in the environment of this process.",
            )
        return os.environ[found[1]]

    rest, _, query = address.removeprefix("kafka://").partition("?")
    hosts, _, topic = re.sub(r"\$\{(\w+)\}", value, rest).partition("/")
    if not hosts or "@" in hosts or not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", topic):
        raise BadStreamAddress(
            "the address of a stream names no brokers or no topic.",
            expected="kafka://HOST:PORT[,HOST:PORT]/TOPIC is expected, with librdkafka's options behind ?: "
            "security.protocol, sasl.username, sasl.password=${VAR}.",
        )
    options: dict[str, Any] = {
        name: re.sub(r"\$\{(\w+)\}", value, said) for name, said in parse_qsl(query, keep_blank_values=True)
    }
    return {**options, "bootstrap.servers": hosts}, topic, f"topic '{topic}' at kafka://{hosts}"


def _bad_options(shown: str, error: Exception) -> BadStreamAddress:
    told = error.args[0]
    words = told.str() if hasattr(told, "str") else str(told)
    if any(secret in words.lower() for secret in SECRETS):
        words = "an option cannot be used"
    return BadStreamAddress(f"the options of {shown} cannot be used: {words}.", state="Nothing was opened.")
