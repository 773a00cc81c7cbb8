"""Settings: what runs where. `seatrial.toml`, then its `[env.NAME]`, then `SEATRIAL_*` variables.

Settings say where things are kept; what exists (models, features, deployments) is Python and never stands here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from seatrial.core.errors import UsageError, did_you_mean, listed
from seatrial.core.windows import BadDuration, duration_us

LOCAL = "local"
Engine = Literal["local", "spark"]


class BadSettings(UsageError):
    """seatrial.toml cannot be read, or names something that does not exist."""

    code = "settings.bad"


class Stores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where bytes live. Relative paths start at the project's folder.

    online: `sqlite:///PATH`, or a Redis server: `redis://`, `rediss://` or `unix://`, see `stores.online`; "${VAR}"
        in it is taken from the environment, so that no password stands in the file.
    """

    metadata: str = "sqlite:///.seatrial/metadata.db"
    objects: str = ".seatrial/objects"
    online: str = "sqlite:///.seatrial/online.db"
    log: str = ".seatrial/log"
    mlflow: str = "sqlite:///.seatrial/mlflow.db"


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What needs a second person, and what is not let through.

    approval: "required": a release goes live only after somebody else than who packed or proposed it approved it;
        "none": whoever may deploy decides alone.
    unrepeatable: an estimator that gives another model with the same seed is noted, or training is refused.
    distrusted: what is live when the key that signed it is revoked goes on answering and is reported, or requests are
        refused until it is signed again.
    """

    approval: Literal["required", "none"] = "required"
    unrepeatable: Literal["note", "refuse"] = "note"
    distrusted: Literal["report", "refuse"] = "report"


class Signing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What signs releases and routes.

    key: empty: SEATRIAL_SIGNING_KEY, or .seatrial/keys/signing.key, made on first use; the path of a private key; a
        variable of the environment, "${VAR}", that holds one; or "exec:COMMAND", a key service (`releases.keyring`).
    """

    key: str = ""


class Spark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where Spark is, for those who join on it.

    master: as Spark takes it: "local[*]" is this machine, "spark://HOST:7077" or "yarn" a cluster.
    """

    master: str = "local[*]"


class Alerts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How alerts leave the house.

    internal: networks ("10.0.0.0/8"), addresses and names of hosts on this machine or in the house's own network that
        messages may be sent to; nothing internal is allowed otherwise.
    heartbeat: an http or https address that is asked by POST whenever `seatrial alerts check` has done its work, so
        that somebody outside notices when it does not; "${VAR}" and "${file:PATH}" as for routes.
    textfile: a folder of node_exporter's textfile collector, into which `monitor` and `alerts check` write gauges.
    """

    internal: tuple[str, ...] = ()
    heartbeat: str = ""
    textfile: str = ""


class Cost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What computing costs here, for `status --cost`.

    cpu_hour: an hour of one core; 0: no money is shown. currency: its name, such as "EUR".
    """

    cpu_hour: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0
    currency: str = ""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A project's settings in one environment.

    name: the project's name, by default its folder's; what an online store on a server keeps is found by it.
    threads: threads for reading and joining.
    engine: where label rows are joined with features: "local", in this process, or "spark".
    log_fsync: when the prediction log waits for the disk: "never", "group" or "always".
    log_ship: within which time a closed part of the prediction log is in the object store; "never": it stays here.
    log_retention: how long predictions are kept, such as "90d"; empty: for ever.
    log_full: what becomes of an answer that the log's disk does not take: "refuse" answers 503, "serve_unlogged" lets
        it leave, with a flag, and counts it.
    routes: name -> address that alerts are sent to, for a model's on_call="route:NAME", see `monitoring.routes`;
        "${VAR}" is taken from the environment and "${file:PATH}" from a file, so that no secret stands here.
    webhooks: the same, for on_call="webhook:NAME".
    sources: name of a raw source -> the Parquet file that its rows are read from here, instead of from where it is
        declared: rows as a snapshot keeps them, to work on without the database, or on a part of it.
    """

    name: str = ""
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    engine: Engine = "local"
    log_fsync: Literal["never", "group", "always"] = "never"
    log_ship: str = "60s"
    log_retention: str = ""
    log_full: Literal["refuse", "serve_unlogged"] = "refuse"
    stores: Stores = Stores()
    policy: Policy = Policy()
    spark: Spark = Spark()
    signing: Signing = Signing()
    cost: Cost = Cost()
    webhooks: dict[str, str] = {}
    routes: dict[str, str] = {}
    alerts: Alerts = Alerts()
    sources: dict[str, str] = {}


def read_settings(text: str, *, env: str, variables: Mapping[str, str]) -> Settings:
    """The settings of environment `env`.

    text: the content of seatrial.toml; variables: the process's environment variables. SEATRIAL_THREADS sets
    `threads`, SEATRIAL_NAME `name`, SEATRIAL_STORES_ONLINE sets `stores.online`, and so on.
    Raises BadSettings with what was found and what is known.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"seatrial.toml is not TOML: {error}.") from None
    environments = found.pop("env", {})
    if not isinstance(environments, dict) or not all(isinstance(one, dict) for one in environments.values()):
        raise BadSettings("'env' in seatrial.toml is no table of tables.", expected="[env.NAME] is expected.")
    if env != LOCAL and env not in environments:
        raise BadSettings(
            f"no environment is named '{env}'.",
            expected=f"Known are {listed([LOCAL, *environments])}. {did_you_mean(env, environments)}".strip(),
            next=f"Add [env.{env}] to seatrial.toml.",
        )
    merged = _merge(found, environments.get(env, {}))
    for field in Stores.__struct_fields__:
        value = variables.get(f"SEATRIAL_STORES_{field.upper()}")
        if value is not None:
            merged = _merge(merged, {"stores": {field: value}})
    if "SEATRIAL_POLICY_APPROVAL" in variables:
        merged = _merge(merged, {"policy": {"approval": variables["SEATRIAL_POLICY_APPROVAL"]}})
    if "SEATRIAL_SPARK_MASTER" in variables:
        merged = _merge(merged, {"spark": {"master": variables["SEATRIAL_SPARK_MASTER"]}})
    for field in ("name", "threads", "engine", *(name for name in Settings.__struct_fields__ if name[:4] == "log_")):
        if f"SEATRIAL_{field.upper()}" in variables:
            merged = merged | {field: variables[f"SEATRIAL_{field.upper()}"]}
    try:
        return _checked(msgspec.convert(merged, Settings, strict=False))
    except msgspec.ValidationError as error:
        known = [*Settings.__struct_fields__, "env"]
        raise BadSettings(
            f"seatrial.toml does not fit: {error}.",
            expected=f"Known are {listed(known)}; under [stores]: {listed(Stores.__struct_fields__)}; "
            f"under [policy]: {listed(Policy.__struct_fields__)}; under [spark]: {listed(Spark.__struct_fields__)}; "
            f"under [signing]: {listed(Signing.__struct_fields__)}; "
            f"under [cost]: {listed(Cost.__struct_fields__)}; under [alerts]: {listed(Alerts.__struct_fields__)}.",
        ) from None


def _checked(settings: Settings) -> Settings:
    twice = sorted(set(settings.webhooks) & set(settings.routes))
    if twice:
        raise BadSettings(f"'{twice[0]}' stands under [webhooks] and under [routes].", expected="One of them is meant.")
    for name, nothing in (("log_ship", "never"), ("log_retention", "")):
        value = getattr(settings, name)
        if value == nothing:
            continue
        try:
            duration_us(value)
        except BadDuration as error:
            raise BadSettings(
                f"'{name}' in seatrial.toml: {error.found}", expected=f'{error.expected} Or "{nothing}".'
            ) from None
    return settings


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged
