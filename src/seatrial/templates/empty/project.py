"""What this project is: its data, its features, its model and how that is served.

Take the lines below out of the comment, put your own names in, and run:

    seatrial validate && seatrial train && seatrial release

then what `release` says comes next: somebody else approves it (seatrial approve RELEASE --reason "..." --actor NAME),
seatrial deploy, seatrial serve.
"""

# from seatrial import Deployment, Gate, Model, ParquetSource, expect
#
# # --- data: one row per thing to predict, with what was known then and what came of it ------------------------------
#
# orders = ParquetSource(
#     "data/orders.parquet",              # CsvSource and QuerySource (SQL over other sources) work the same way
#     event_timestamp="ordered_at",       # the instant of the prediction; leave it out when rows have no time
#     label_known_at="delivered_at",      # when the label could be known; training never looks past it
#     event_key=["order_id"],
#     expectations=[
#         expect.not_null("order_id"),
#         expect.unique(["order_id"]),
#         expect.between("distance", 0, 500),
#     ],
# )
#
# # --- a model: columns that the request carries are features without anything else -----------------------------------
#
# late = Model(
#     "late",
#     task="binary",                      # "binary", "multiclass" or "regression"
#     target="late",
#     labels=orders,
#     key=["order_id"],
#     features=["request:distance", "request:weekday", "request:weight"],
#     estimator="lightgbm.LGBMClassifier",  # any class that works like scikit-learn's
#     params={"n_estimators": 200},
#     gates=[Gate.at_least("roc_auc", 0.70), Gate.cv_gap_at_most(0.05)],
#     owner="your-team",
#     on_call="who is called",
#     runbook="docs/runbook.md",
# )
# Deployment("late")
#
# # --- later, a feature view: what an entity did lately, joined as of each prediction and kept online ------------
#
# from seatrial import Entity, agg, feature_view, on_request
#
# courier = Entity("courier_id")
# deliveries = ParquetSource("data/deliveries.parquet", event_timestamp="delivered_at", event_key=["order_id"])
#
# @feature_view(entity=courier, source=deliveries, ttl="7d", owner="your-team")
# class courier_delay:
#     """How late this courier has been delivering, in minutes."""
#     mean_24h = agg.mean("delay", window="24h")
#     last = agg.last("delay")
#
# @on_request
# def delay_per_km(distance, courier_delay__mean_24h):
#     return courier_delay__mean_24h / distance
#
# # ... then features=[courier_delay, delay_per_km, "request:distance", ...], and the request carries courier_id.
