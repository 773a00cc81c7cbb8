"""The demo's rollout: a release that takes its steps on evidence, and one that the canary takes back.

Flights are asked of a running server, each at its own instant, and the project's clock stands where the step is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from time import sleep
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

from seatrial.cli import talk
from seatrial.core.clock import FixedClock, monotonic, to_us
from seatrial.core.windows import Window

if TYPE_CHECKING:
    from seatrial.project import Project
    from seatrial.verbs.results import Deployed
    from seatrial.verbs.rolling import Moved

TAKEN_UP_WITHIN = 30.0  # seconds; a server takes one or two
FIELDS = ["sched_hour", "sched_minute", "weekday", "distance", "sched_block_min", "sched_next_3h"]


def stepped(
    project: Project, begun: Deployed, tell: Callable[[str], None], progress: talk.Progress | None, url: str
) -> list[Moved]:
    """Ask a day of flights at each of the two steps before the last, and judge each; the looks."""
    looks: list[Moved] = []
    generation, start = begun.generation, project.clock.now()
    tell(f"{start:%-d %B}: version {begun.version} takes {begun.share:g} % of the flights, by request.")
    for _ in range(2):
        looks.append(judged(project, generation, timedelta(days=1), progress, url))
        tell(f"{project.clock.now():%-d %B}: {words(looks[-1])}")
        generation = looks[-1].generation
    return looks


def judged(project: Project, generation: int, length: timedelta, progress: talk.Progress | None, url: str) -> Moved:
    """Ask the flights of so long a time of the server, once it has taken up this generation; then judge the step."""
    start = project.clock.now()
    taken_up(url, generation)
    project.replay("late", Window(to_us(start), to_us(start + length)), url=url, progress=progress)
    project.clock = FixedClock(start + length)
    return project.deployment_advance("late")


def words(look: Moved) -> str:
    """What came of a look, with its figures."""
    analysis = look.analysis
    rows = analysis.rows
    said = f"{rows['new']:,} of {rows['live'] + rows['new']:,} flights answered by the new release: {analysis.verdict}"
    scores = next((one for one in analysis.guardrails if one.name == "mean_score"), None)
    if analysis.verdict != "advance" or scores is None or scores.difference is None:
        return f"{said}, {analysis.why}."
    means = f"mean probability {scores.new:.3f} against {scores.live:.3f}"
    return f"{said} to {look.share:g} %; {means}, a difference between {scores.low:+.3f} and {scores.high:+.3f}."


def wrong_way_round(project: Project) -> Any:
    """A model from a notebook in which a flight counts that is *on time*: a logistic regression of the schedule alone,
    as a release. A model that comes from elsewhere has no gates."""
    import pyarrow.compute as pc
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = project._inputs.uncut(project.definitions.model("late").labels)
    known = table.filter(pc.and_(pc.less(table["arrived_at"], project.clock.now()), table["late"].is_valid()))
    frame = known.slice(max(known.num_rows - 5_000, 0)).select([*FIELDS, "late"]).to_pandas().dropna()
    inputs = frame[FIELDS]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(inputs, 1 - frame["late"].astype(int))
    return project.release(
        "late", from_=model, sample=inputs.head(500), owner="flight-ops", runbook="docs/runbook.md",
        description="from a notebook",
    )  # fmt: skip


def taken_up(url: str, generation: int) -> None:
    """Wait until the server routes by this generation."""
    until = monotonic() + TAKEN_UP_WITHIN
    while monotonic() < until:
        with urlopen(f"{url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        if any(one.startswith("seatrial_route_generation") and float(one.split()[-1]) >= generation for one in lines):
            return
        sleep(0.1)
