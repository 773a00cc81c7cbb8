"""The standing watch: the alarm policy of a model, carried on from where the last report left it.

What is carried is kept as a record for each part of the way, under the head `watch/MODEL`: the state and the values of
its windows. What is usual by the hour of the week is a record of its own, because it is large and stays the same for
weeks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from seatrial.core.identity import new_id
from seatrial.core.records import Record
from seatrial.core.windows import Window, duration_text, duration_us
from seatrial.stores.metadata import HeadMoved

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from seatrial.folder.workspace import Workspace
    from seatrial.monitoring.definition import Monitor
    from seatrial.monitoring.policy.judgement import Learned
    from seatrial.monitoring.policy.watch import Source, State, Step


class StandingWatch:
    """One model's policy. instants: when the predictions of a window were made for, in microseconds."""

    def __init__(
        self, workspace: Workspace, monitor: Monitor, source: Source, instants: Callable[[Window], NDArray[np.int64]]
    ) -> None:
        self._workspace, self._monitor, self._source, self._instants = workspace, monitor, source, instants

    def continued(self, *, keep: bool) -> tuple[State | None, Learned | None]:
        """Where the policy stands when every window was judged that is over by now; None without a prediction.

        keep: each part of the way is kept in a transaction of its own; when somebody else has gone on meanwhile, what
        they kept counts.
        """
        from seatrial.monitoring.policy.watch import advance

        try:
            state, learned, generation = self._stands()
            if state is None:
                return None, None
            for step in advance(self._monitor, state, learned, self._source, until_us=self._workspace.now_us):
                if keep:
                    self._keep(step, learned, generation)
                    generation += 1
                state, learned = step.state, step.learned
        except HeadMoved:
            state, learned, _ = self._stands()
        return state, learned

    @property
    def every(self) -> str:
        """How long the windows are that are watched, such as "1h"; "" before the first."""
        from seatrial.monitoring.policy import watch

        head = self._workspace.metadata.head("watch", self._monitor.model)
        if self._monitor.every or head is None:
            return self._monitor.every
        return duration_text(watch.read_state(self._workspace.record(head.record_id).body).every_us)

    def _stands(self) -> tuple[State | None, Learned | None, int]:
        """What was kept last, and the generation of its head; a watch that begins when windows have another length."""
        from seatrial.monitoring.policy import watch
        from seatrial.monitoring.policy.judgement import Learned

        metadata, now_us = self._workspace.metadata, self._workspace.now_us
        head = metadata.head("watch", self._monitor.model)
        if head is not None:
            body = self._workspace.record(head.record_id).body
            state = watch.read_state(body)
            if not self._monitor.every or duration_us(self._monitor.every) == state.every_us:
                season = metadata.record(body["season"]) if body.get("season") else None
                learned = None if season is None else msgspec.convert(season.body["learned"], Learned)
                return state, learned, head.generation
        at = self._instants(Window(max(now_us - watch.BACK_US, 0), now_us))
        fresh = watch.begun(self._monitor, at, self._source, until_us=now_us)
        return fresh, None, 0 if head is None else head.generation

    def _keep(self, step: Step, before: Learned | None, generation: int) -> None:
        from seatrial.monitoring.policy import watch

        metadata, model = self._workspace.metadata, self._monitor.model
        head = metadata.head("watch", model)
        known = head is not None and step.learned is not None
        season = self._workspace.record(head.record_id).body.get("season", "") if head and known else ""
        with metadata.transaction() as transaction:
            if step.learned is not None and (step.learned is not before or not season):
                body = {"format": watch.FORMAT, "learned": msgspec.to_builtins(step.learned)}
                kept = Record(new_id("season"), "season", model, (), body)
                transaction.add(kept)
                season = kept.id
            inputs = (step.state.release,) if metadata.record(step.state.release) else ()
            body = watch.plain(step.state, step.windows) | {"season": season}
            record = Record(new_id("watch"), "watch", model, inputs, body)
            transaction.add(record)
            transaction.move("watch", model, record.id, expected=generation)
