"""Data quality: rules about the rows themselves. Hard ones fail: a fault, not a change of the world. Soft ones say.

Hard: a column that the model reads is gone, dark or of another type; many categories that nobody knew; scores are
missing or impossible; a prediction is there twice; nearly all rows are missing. A season is no fault: values outside
the range, a few more missing ones, columns that go missing together, fewer or more rows than usual, rows twice, old
rows, old features and slow labels are noticed, and never make a report fail.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from seatrial.core.clock import from_us, iso
from seatrial.core.windows import DAY_US, HOUR_US
from seatrial.monitoring.report import Check
from seatrial.monitoring.rows.reference import Categories, Column, Reference
from seatrial.monitoring.rows.sample import Times
from seatrial.stats.distances import proportion_p_value

if TYPE_CHECKING:
    from seatrial.monitoring.rows.sample import Sample
    from seatrial.monitoring.rows.tally import Tallies, Tally

DARK = 0.10
"""How much larger than the reference's the share of missing values may be."""
UNSEEN = 0.10
"""Share of values that no category of a complete reference covers."""
VOLUME = 0.10
"""Share of the reference's rows a day below which nearly all traffic is missing."""
SURE = 0.001
MIN_ROWS = 200

# What is noticed
MORE_MISSING = 0.01
FEW = 0.01
"""Share of values outside the range, of unknown categories, or of rows in which columns are missing together."""
CHANCE = 3
"""How many times as often as by chance columns are missing together."""
AGAIN = 0.05
"""Share of rows that are there before already."""
USUAL = (0.5, 2.0)
"""Times the usual rows a day."""
SLOWER = 2.0
"""Times the usual age or delay; of the newest row, times the longest pause between two."""


def quality(
    sample: Sample, reference: Reference, *, counted: Tallies | None = None, until_us: int | None = None
) -> list[Check]:
    """Every rule that applies. No row at all: no rule can be looked at, and none passes silently.

    counted: `sample.counted(reference)`, when somebody has it already. until_us: the instant up to which rows should
    be there; None: nobody knows, and how fresh they are is not looked at.
    """
    rows = sample.rows
    if not rows.num_rows:
        return []
    found = sample.counted(reference) if counted is None else counted
    checks = [columns_there(found, reference), _once(sample, found), _scored(sample)]
    if sample.task != "regression":
        checks.append(_in_range(sample))
    checks += of_counts(found, reference)
    times = _times(sample) if sample.answers is None else sample.answers.times()
    if times is not None and times.rows > 1:
        checks += volume(times.first_us, times.whole, times.of_days, reference)
        if until_us is not None:
            checks += freshness(until_us - times.last_us, times.longest_us, times.rows)
    return checks + _keys(sample) + _ages(sample, reference) + _label_delay(sample, reference)


def _times(sample: Sample) -> Times:
    at_us = sample.at_us()
    whole = int((at_us[-1] - at_us[0]) // DAY_US)
    of_days = int(np.searchsorted(at_us, at_us[0] + whole * DAY_US))
    longest = int(np.diff(at_us).max()) if at_us.size > 1 else 0
    return Times(int(at_us[0]), int(at_us[-1]), at_us.size, whole, of_days, longest)


def of_counts(found: Tallies, reference: Reference) -> list[Check]:
    """The rules for which counts are enough: those of single columns, missing together, and rows that are twice."""
    checks = []
    for name, one in found.columns.items():
        checks += _column(name, one, reference.columns[name])
    return checks + _together(found, reference) + _again(found)


def columns_there(found: Tallies, reference: Reference) -> Check:
    absent = sorted(set(reference.columns) - set(found.names))
    more = sorted(set(found.names) - set(reference.columns)) if reference.columns else []
    words = f"{', '.join(absent)} missing" if absent else f"{len(reference.columns)} columns"
    words += f"; new: {', '.join(more[:10])}{' ...' if len(more) > 10 else ''}" if more else ""
    return Check("columns", "", not absent, words, "every column of the reference", noticed=bool(more))


def _once(sample: Sample, found: Tallies) -> Check:
    import pyarrow.compute as pc

    ids = sample.rows["prediction_id"]
    twice = len(ids) - ids.null_count
    twice -= pc.count_distinct(ids, mode="only_valid").as_py() if twice else 0
    twice = twice if found.ids_again is None else found.ids_again
    return Check("each prediction once", "", twice == 0, f"{twice:,} of {len(ids):,} again", "no prediction_id twice")


def _scored(sample: Sample) -> Check:
    absent = int((~sample.answered() if sample.decided_only else np.isnan(sample.scores())).sum())
    return scores_there(absent, sample.rows.num_rows)


def scores_there(absent: int, rows: int) -> Check:
    return Check("scores there", "", absent == 0, f"{absent:,} of {rows:,} without", "a score each")


def _in_range(sample: Sample) -> Check:
    scores = sample.scores()
    return scores_in_range(int(((scores < 0) | (scores > 1)).sum()))


def scores_in_range(outside: int) -> Check:
    return Check("scores are probabilities", "", outside == 0, f"{outside:,} outside", "within [0, 1]")


def _column(name: str, found: Tally, reference: Column) -> list[Check]:
    of_words = isinstance(reference, Categories)
    if found.present and found.text != of_words:
        kinds = ("text", "numbers") if found.text else ("numbers", "text")
        return [Check("type", name, False, kinds[0], kinds[1])]
    if not found.total:
        return []
    share, was = found.missing / found.total, reference.missing
    whole = round(reference.rows / (1 - was)) if was < 1 else 0
    dark, more = (share > was + least and found.total >= MIN_ROWS for least in (DARK, MORE_MISSING))
    if more and whole:
        sure = proportion_p_value(found.missing, found.total, round(was * whole), whole) < SURE
        dark, more = dark and sure, more and sure
    words = f"{share:.1%} missing of {found.total:,}"
    expected = f"at most {min(1.0, was + DARK):.1%} ({was:.1%} before)"
    checks = [Check("values there", name, not dark, words, expected, noticed=more and not dark)]
    if found.present < MIN_ROWS or not found.counts.size or not reference.rows:
        return checks
    if isinstance(reference, Categories):
        if reference.complete:
            unseen = int(found.counts[-1]) / found.present
            words = f"{unseen:.1%} of values never seen before"
            known = unseen <= UNSEEN
            seen = Check(
                "known categories", name, known, words, f"at most {UNSEEN:.0%}", noticed=known and unseen > FEW
            )
            checks.append(seen)
        return checks
    outside = found.outside / found.present
    words = f"{outside:.1%} outside, from {found.low:.4g} to {found.high:.4g}"
    expected = f"from {reference.low:.4g} to {reference.high:.4g}, as in {reference_words(reference)}"
    return [*checks, Check("range", name, True, words, expected, noticed=outside > FEW)]


def reference_words(reference: Column) -> str:
    return f"{reference.rows:,} values before"


def _together(found: Tallies, reference: Reference) -> list[Check]:
    """Columns that are missing in the same rows more often than by chance; they have one feed, or one fault."""
    usual = [name for name, one in found.columns.items() if one.total and one.missing]
    if found.rows < MIN_ROWS or len(usual) < 2:
        return []
    shares = {name: found.columns[name].missing / found.rows for name in usual}
    checks = []
    covered: set[frozenset[str]] = set()
    for names, count in found.together.items():
        share = count / found.rows
        if share < FEW:
            break
        chance = float(np.prod([shares[name] for name in names]))
        if share < CHANCE * chance or frozenset(names) in covered:
            continue
        covered |= {frozenset(pair) for pair in combinations(names, 2)}
        shown = f"{', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}"
        words = f"{shown}: {share:.1%} of rows lack them together"
        before = reference.together.get(tuple(sorted(names)), 0.0) if reference.together else 0.0
        expected = f"{before:.1%} before" if reference.together is not None else f"{chance:.2g} of rows if by chance"
        new = share > before + MORE_MISSING
        checks.append(Check("missing together", "", True, words, expected, noticed=new))
    return checks[:10]


def _again(found: Tallies) -> list[Check]:
    if found.repeated is None or not found.columns or not found.rows:
        return []
    share = found.repeated / found.rows
    words = f"{found.repeated:,} of {found.rows:,} are one before, in time and inputs"
    noticed = share > AGAIN and found.rows >= MIN_ROWS
    return [Check("each row once", "", True, words, f"at most {AGAIN:.0%}", noticed=noticed)]


def _keys(sample: Sample) -> list[Check]:
    """One key asked about twice for one instant: a caller that tries again, or a feed that comes twice."""
    if "key" not in sample.rows.column_names:
        return []
    keys = sample.rows["key"].to_numpy()
    order = np.lexsort((keys, sample.at_us()))
    keys, at_us = keys[order], sample.at_us()[order]
    twice = int(((keys[1:] == keys[:-1]) & (at_us[1:] == at_us[:-1]) & (keys[1:] >= 0)).sum())
    words = f"{twice:,} of {keys.size:,} again for the same instant"
    noticed = keys.size >= MIN_ROWS and twice / keys.size > FEW
    return [Check("each key once", "", True, words, f"at most {FEW:.0%}", noticed=noticed)]


def volume(start_us: int, days: int, rows: int, reference: Reference) -> list[Check]:
    """Whole days only: a window that has just begun is not short of rows. rows: of the `days` from start_us on."""
    if not reference.rows_per_day or days < 1:
        return []
    usual = (rows / days) / reference.rows_per_day
    found = f"{rows / days:,.0f} rows a day since {iso(from_us(start_us))[:10]}"
    expected = f"about {reference.rows_per_day:,.0f} a day, as in {reference.name}"
    enough = usual >= VOLUME
    return [Check("volume", "", enough, found, expected, noticed=enough and not USUAL[0] <= usual <= USUAL[1])]


def freshness(age_us: int, longest_us: int, rows: int) -> list[Check]:
    """age_us: of the newest row. longest_us: the longest pause between two rows of the window."""
    if rows < MIN_ROWS:
        return []
    most = max(SLOWER * longest_us, HOUR_US)
    expected = f"at most {spoken(most)}: the longest pause in these rows is {spoken(longest_us)}"
    return [Check("newest row", "", True, f"{spoken(max(age_us, 0))} old", expected, noticed=age_us > most)]


def _ages(sample: Sample, reference: Reference) -> list[Check]:
    """How old the stored features were when they were used, as the log has it."""
    checks = []
    for name in sample.rows.column_names:
        if not (name.startswith("view_") and name.endswith("_age_s")):
            continue
        view = name.removeprefix("view_").removesuffix("_age_s")
        ages = sample.rows[name].drop_null().to_numpy()
        there = ages.size / sample.rows.num_rows
        if not ages.size:
            checks.append(
                Check("age of features", view, True, "none of the rows has any", "a look-up each", noticed=True)
            )
            continue
        middle, late = (float(age) * 1e6 for age in np.quantile(ages, (0.5, 0.95)))
        words = f"half up to {spoken(middle)}, 95 of 100 up to {spoken(late)}"
        words += "" if there == 1 else f"; {1 - there:.1%} of rows without"
        usual = reference.usual.get(name)
        expected = f"95 of 100 up to {spoken(usual * 1e6)}, as in {reference.name}" if usual is not None else ""
        slower = usual is not None and late > SLOWER * max(usual * 1e6, 1) and ages.size >= MIN_ROWS
        checks.append(Check("age of features", view, True, words, expected, noticed=slower))
    return checks


def _label_delay(sample: Sample, reference: Reference) -> list[Check]:
    if sample.answers is not None:
        count, middle, late = sample.answers.label_delays()
    else:
        delays = sample.label_delays_us()
        count = delays.size
        middle, late = np.quantile(delays, (0.5, 0.95)).tolist() if count else (0.0, 0.0)
    if not count:
        return []
    words = f"half of {count:,} labels after {spoken(middle)}, 95 of 100 after {spoken(late)}"
    usual = reference.usual.get("label_delay_us")
    expected = f"half after {spoken(usual)}, as in {reference.name}" if usual is not None else ""
    slower = usual is not None and middle > SLOWER * max(usual, 1) and count >= MIN_ROWS
    return [Check("label delay", "", True, words, expected, noticed=slower)]


def spoken(us: float) -> str:
    """A length of time as a person says it."""
    for unit, word in ((DAY_US, "days"), (HOUR_US, "hours"), (60_000_000, "minutes"), (1_000_000, "seconds")):
        if us >= 2 * unit:
            return f"{us / unit:.3g} {word}"
    return f"{us / 1e6:.2g} seconds"
