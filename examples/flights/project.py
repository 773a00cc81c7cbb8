"""Two hours before its scheduled departure from New York: will this flight arrive more than 15 minutes late?

Raw tables become events with the time at which each could be known; features look only at what was known at the
instant of the prediction. All times are UTC inside; the local clocks of the raw tables are converted here.
"""

from seatrial import (
    Canary,
    CsvSource,
    Deployment,
    Entity,
    Gate,
    Guardrail,
    Model,
    Monitor,
    QuerySource,
    Retrain,
    SetAside,
    Trigger,
    agg,
    expect,
    feature_view,
    on_request,
)

# --- raw tables ---------------------------------------------------------------------------------------------------

airports = CsvSource("data/airports.csv", nulls=["NA"], expectations=[expect.unique(["faa"])])
airlines = CsvSource("data/airlines.csv", nulls=["NA"], expectations=[expect.unique(["carrier"])])
planes = CsvSource("data/planes.csv", nulls=["NA"], expectations=[expect.unique(["tailnum"])])

flights = CsvSource(
    "data/flights.csv",
    nulls=["NA"],
    expectations=[
        expect.unique(["time_hour", "carrier", "flight", "origin", "dest"]),
        expect.not_null("time_hour"),
        expect.one_of("origin", ["EWR", "JFK", "LGA"]),
        expect.between("dep_delay", -120, 24 * 60),
        expect.references("carrier", airlines, "carrier"),
    ],
)
weather = CsvSource(
    "data/weather.csv",
    nulls=["NA"],
    expectations=[
        expect.unique(["origin", "time_hour"]),
        expect.between("wind_speed", 0, 150),
        expect.between("temp", -40, 130),
    ],
    event_timestamp="time_hour",
    event_key=["origin", "time_hour"],
    # one row has a wind of 1,048 mph; without this line validation stops everything that follows
    set_aside=[SetAside(where="wind_speed > 150", reason="beyond any wind measured on the ground")],
)

# --- events: what happened, and when it could be known ------------------------------------------------------------

# Scheduled times are local clocks: of New York at departure, of the destination at arrival. Four destinations are
# not in the airports table. The arrival's day is the first on which it follows the departure by 15 minutes.
TIMES = """
    WITH zones AS (
        SELECT faa AS dest, tzone AS zone FROM airports WHERE tzone IS NOT NULL
        UNION ALL VALUES ('SJU', 'America/Puerto_Rico'), ('BQN', 'America/Puerto_Rico'),
                         ('PSE', 'America/Puerto_Rico'), ('STT', 'America/St_Thomas')
    ),
    clocks AS (
        SELECT f.*, zone, time_hour + to_minutes(minute) AS sched_dep,
               make_timestamp(year, month, day, 0, 0, 0)
               + to_minutes((sched_arr_time // 100) * 60 + sched_arr_time % 100) AS arr_clock
        FROM flights f JOIN zones USING (dest)
    ),
    times AS (
        SELECT * EXCLUDE (arr_clock), list_filter(
            [(arr_clock + to_hours(24 * day)) AT TIME ZONE zone FOR day IN [-1, 0, 1]],
            lambda t: t > sched_dep + to_minutes(15)
        )[1] AS sched_arr
        FROM clocks
    )
"""
FLIGHT = ["time_hour", "carrier", "flight", "origin", "dest"]
KEY = ", ".join(FLIGHT)
tables = {"flights": flights, "airports": airports}

departures = QuerySource(
    f"""{TIMES} SELECT {KEY}, sched_dep + to_minutes(dep_delay::BIGINT) AS departed_at, dep_delay,
        dep_delay > 15 AS delayed
    FROM times WHERE dep_delay IS NOT NULL""",
    name="departures",
    tables=tables,
    event_timestamp="departed_at",
    event_key=FLIGHT,
)
arrivals = QuerySource(
    f"""{TIMES} SELECT {KEY}, tailnum, sched_arr + to_minutes(arr_delay::BIGINT) AS arrived_at,
        arr_delay, arr_delay > 15 AS late
    FROM times WHERE arr_delay IS NOT NULL""",
    name="arrivals",
    tables=tables,
    event_timestamp="arrived_at",
    event_key=FLIGHT,
)
# time_hour is the floor of an observation made within the hour, so it can be known when the hour is over
observations = QuerySource(
    """SELECT * EXCLUDE (wind_gust), coalesce(wind_gust, 0) AS wind_gust, time_hour + to_hours(1) AS known_at
    FROM weather""",
    name="observations",
    tables={"weather": weather},
    event_timestamp="time_hour",
    known_at="known_at",
    event_key=["origin", "time_hour"],
)
# what is known two hours before departure: the schedule, and nothing of the flight itself
scheduled = QuerySource(
    f"""{TIMES} SELECT {KEY}, tailnum, distance,
        hour::BIGINT AS sched_hour, minute::BIGINT AS sched_minute, isodow(make_date(year, month, day)) AS weekday,
        epoch(sched_arr - sched_dep) / 60 AS sched_block_min,
        count(*) OVER (
            PARTITION BY origin ORDER BY sched_dep
            RANGE BETWEEN to_minutes(119) PRECEDING AND to_hours(1) FOLLOWING
        ) AS sched_next_3h,
        sched_dep - to_hours(2) AS predict_at,
        sched_arr + to_minutes(arr_delay::BIGINT) AS arrived_at,
        arr_delay > 15 AS late
    FROM times""",
    name="scheduled",
    tables=tables,
    event_timestamp="predict_at",
    label_known_at="arrived_at",
)

# --- features -----------------------------------------------------------------------------------------------------

origin = Entity("origin")
carrier = Entity("carrier")
route = Entity("route", keys=["origin", "dest"])
plane = Entity("tailnum", description="The aircraft, by its tail number; its previous arrival is mostly elsewhere.")


@feature_view(entity=origin, source=departures, owner="flight-ops")
class origin_departures:
    """How late flights have been leaving this airport, in minutes."""

    delay_2h = agg.mean("dep_delay", window="2h", resolution=1)
    delayed_share_2h = agg.mean("delayed", window="2h", resolution=1)
    count_2h = agg.count(window="2h")
    delay_24h = agg.mean("dep_delay", window="24h", resolution=1)
    count_24h = agg.count(window="24h")


@feature_view(entity=carrier, source=departures, owner="flight-ops")
class carrier_departures:
    """How late this carrier has been leaving New York, in minutes."""

    delay_2h = agg.mean("dep_delay", window="2h", resolution=1)
    delayed_share_2h = agg.mean("delayed", window="2h", resolution=1)
    count_2h = agg.count(window="2h")
    count_24h = agg.count(window="24h")


@feature_view(entity=carrier, source=departures, owner="flight-ops")
class carrier_day:
    """What `carrier_excess` compares with the airport; no input of the model by itself."""

    delay_24h = agg.mean("dep_delay", window="24h", resolution=1)


@feature_view(entity=route, source=arrivals, owner="flight-ops")
class route_arrivals:
    """How late flights of this route have been arriving, in minutes."""

    delay_24h = agg.mean("arr_delay", window="24h", resolution=1)
    count_24h = agg.count(window="24h")


@feature_view(entity=plane, source=arrivals, ttl="7d", owner="flight-ops")
class plane_arrival:
    """The plane's last known arrival."""

    delay = agg.last("arr_delay")
    hours_since = agg.age(unit="1h")


@feature_view(entity=origin, source=observations, ttl="11h", owner="flight-ops")
class airport_weather:
    """The latest weather observation at the airport: Fahrenheit, mph, inches, millibars, miles."""

    temp = agg.last("temp")
    dewp = agg.last("dewp")
    humid = agg.last("humid")
    wind_dir = agg.last("wind_dir")
    wind_speed = agg.last("wind_speed")
    wind_gust = agg.last("wind_gust")
    precip = agg.last("precip")
    pressure = agg.last("pressure")
    visib = agg.last("visib")


@on_request
def carrier_excess(carrier_day__delay_24h: float, origin_departures__delay_24h: float) -> float:
    """How much later this carrier has been leaving than its airport as a whole, over a day, in minutes."""
    return carrier_day__delay_24h - origin_departures__delay_24h


# --- the model ----------------------------------------------------------------------------------------------------

late = Model(
    "late",
    task="binary",
    target="late",
    labels=scheduled,
    key=FLIGHT,
    features=[
        "request:carrier",
        "request:origin",
        "request:dest",
        "request:flight",
        "request:sched_hour",
        "request:sched_minute",
        "request:weekday",
        "request:distance",
        "request:sched_block_min",
        "request:sched_next_3h",
        origin_departures,
        carrier_departures,
        route_arrivals,
        plane_arrival,
        airport_weather,
        carrier_excess,
    ],
    estimator="lightgbm.LGBMClassifier",
    params={"n_estimators": 200, "num_leaves": 31, "learning_rate": 0.05},
    cv_folds=3,
    threads=2,
    gates=[
        Gate.at_least("roc_auc", 0.70),
        Gate.cv_std_at_most(0.10),
        Gate.cv_gap_at_most(0.05),
        Gate.slice_at_least("roc_auc", 0.65, by="origin", min_rows=1000),
        Gate.not_worse_than_champion("log_loss"),
    ],
    slices=["origin", "carrier"],
    owner="flight-ops",
    on_call="webhook:ops",
    runbook="docs/runbook.md",
    description="Whether a flight will arrive more than 15 minutes late, two hours before its scheduled departure.",
)

# About 950 flights a day: a quarter of them is what a day must have to show that no harm is done beyond these margins
canary = Canary(
    [25, 50, 100],
    min_rows=200,
    guardrails=[Guardrail.errors(0.03), Guardrail.slow(0.1), Guardrail.mean_score(0.05), Guardrail.degraded(0.03)],
)
Deployment("late", strategy=canary)

# Mean prediction and observed rate more than .10 apart over a week is an alarm: that is the default of every monitor.
Monitor("late", subject="flights", outcome="late")
Retrain("late", on=[Trigger.calibration(0.05, window="14d", every="7d", looks=2)], judge_for="90d")
