import multiprocessing

import pytest

from seatrial.core.errors import Conflict
from seatrial.core.identity import new_id
from seatrial.core.records import Record
from seatrial.registry import versions
from seatrial.registry.mlflow import TOPIC, run_message
from seatrial.registry.versions import Registry, version_number
from seatrial.stores.metadata import MetadataStore

ME = {"actor": "ada", "at_us": 1_000_000}


@pytest.fixture
def metadata(tmp_path):
    store = MetadataStore(tmp_path / "metadata.db")
    yield store
    store.close()


@pytest.fixture
def registry(metadata):
    return Registry(metadata)


def run_of(model="late"):
    return Record(new_id("run"), "run", model, body={"format": 1})


def made(registry, model="late", count=1):
    return [registry.create(run_of(model), **ME) for _ in range(count)]


def make_versions(path, count, answers):
    store = MetadataStore(path)
    registry = Registry(store)
    answers.put([version_number(registry.create(run_of(), **ME)) for _ in range(count)])
    store.close()


def test_versions_of_a_model_are_counted_from_one(registry):
    made(registry, count=3)
    made(registry, "early")
    assert [version_number(record) for record in registry.versions("late")] == [1, 2, 3]
    assert [version_number(record) for record in registry.versions("early")] == [1]
    assert registry.models() == ["early", "late"]


def test_a_version_is_made_from_its_run_and_keeps_what_it_was_given(metadata, registry):
    run = run_of()
    version = registry.create(run, **ME, body={"metrics": {"roc_auc": 0.7}})
    assert version.inputs == (run.id,)
    assert version.body == {"metrics": {"roc_auc": 0.7}, "version": 1, "run": run.id}
    assert metadata.record(run.id) == run
    assert registry.version_of(run.id) == version
    assert registry.version_of("run_other") is None


def test_eight_processes_make_versions_without_a_gap_or_a_double(tmp_path):
    path = tmp_path / "metadata.db"
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=make_versions, args=(path, 5, answers)) for _ in range(8)]
    for process in processes:
        process.start()
    numbers = [number for _ in processes for number in answers.get(timeout=60)]
    for process in processes:
        process.join(60)
    assert sorted(numbers) == list(range(1, 41))
    store = MetadataStore(path)
    assert [version_number(record) for record in Registry(store).versions("late")] == list(range(1, 41))
    assert version_number(Registry(store).resolve("late@candidate")) == 40
    store.close()


def test_a_run_becomes_a_version_once(registry):
    run = run_of()
    registry.create(run, **ME)
    with pytest.raises(versions.VersionExists) as caught:
        registry.create(run, **ME)
    assert isinstance(caught.value, Conflict)
    assert len(registry.versions("late")) == 1


def test_when_the_callers_transaction_fails_there_is_no_version_and_no_gap(metadata, registry):
    def create_and_fail():
        with metadata.transaction() as transaction:
            registry.create(run_of(), **ME, within=transaction)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        create_and_fail()
    assert registry.models() == []
    assert version_number(made(registry)[0]) == 1


def test_a_new_version_is_the_candidate(registry):
    first, second = made(registry, count=2)
    assert registry.resolve("late@candidate") == second
    assert [(move.from_version, move.to_version) for move in registry.history("late", "candidate")] == [
        (None, 1),
        (1, 2),
    ]
    assert first != second


def test_every_way_to_name_a_version_finds_it(registry):
    first, second, third = made(registry, count=3)
    registry.set_alias("late", "champion", 2, **ME)
    assert registry.resolve("late:1") == first
    assert registry.resolve("late@champion") == second
    assert registry.resolve("late") == third
    assert registry.resolve(second.id) == second
    assert registry.resolve(second.id[:-3]) == second


def test_an_alias_moves_with_a_history_of_who_when_and_why(registry):
    made(registry, count=2)
    registry.set_alias("late", "champion", 1, actor="ada", at_us=10, reason="first")
    registry.set_alias("late", "champion", 2, actor="bob", at_us=20, reason="better in May")
    registry.set_alias("late", "champion", 2, actor="eve", at_us=30)  # names it already: nothing happens
    registry.set_alias("late", "champion", "late:1", actor="ada", at_us=40, reason="roll back")
    told = [
        (move.actor, move.at_us, move.from_version, move.to_version, move.reason)
        for move in registry.history("late", "champion")
    ]
    assert told == [
        ("ada", 10, None, 1, "first"),
        ("bob", 20, 1, 2, "better in May"),
        ("ada", 40, 2, 1, "roll back"),
    ]
    assert registry.history("late", "champion")[0].asserted is True
    assert list(registry.aliases("late")) == ["candidate", "champion"]
    assert registry.history("late", "shadow") == []


def test_an_alias_that_somebody_moved_meanwhile_is_a_conflict(registry):
    made(registry, count=2)
    registry.set_alias("late", "champion", 1, **ME, expected=0)
    with pytest.raises(Conflict):
        registry.set_alias("late", "champion", 2, **ME, expected=0)
    registry.set_alias("late", "champion", 2, **ME, expected=1)
    assert version_number(registry.resolve("late@champion")) == 2


@pytest.mark.parametrize(
    ("reference", "error", "words"),
    [
        ("lat", versions.UnknownModel, "Did you mean 'late'?"),
        ("", versions.UnknownModel, "no model named ''"),
        ("lat@candidate", versions.UnknownModel, "Did you mean 'late'?"),
        ("late@canditate", versions.UnknownAlias, "Did you mean 'candidate'?"),
        ("late:7", versions.UnknownVersion, "versions 1 to 2"),
        ("late:one", versions.UnknownVersion, "versions 1 to 2"),
        ("ver_", versions.UnknownVersion, "2 version ids start with"),
        ("ver_none", versions.UnknownVersion, "no version ids start with"),
    ],
)
def test_a_name_that_means_nothing_says_what_there_is(registry, reference, error, words):
    made(registry, count=2)
    with pytest.raises(error) as caught:
        registry.resolve(reference)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("alias", ["", "7", "Champion", "a@b", "a:b", "latest", "a b"])
def test_an_alias_that_could_be_mistaken_is_refused(registry, alias):
    made(registry)
    with pytest.raises(versions.BadAlias):
        registry.set_alias("late", alias, 1, **ME)
    with pytest.raises(versions.BadAlias):
        registry.create(run_of(), **ME, aliases=[alias])
    assert len(registry.versions("late")) == 1


def test_an_alias_names_versions_of_its_own_model_only(registry):
    made(registry)
    (other,) = made(registry, "early")
    with pytest.raises(versions.UnknownVersion, match="'early', not of 'late'"):
        registry.set_alias("late", "champion", other.id, **ME)


def test_a_deleted_version_stays_a_record_and_names_nothing(metadata, registry):
    first, second = made(registry, count=2)
    with metadata.transaction() as transaction:
        assert registry.delete(second, **ME, reason="by mistake", within=transaction) == ["candidate"]
    assert metadata.record(second.id) == second
    assert registry.resolve("late") == first
    assert registry.aliases("late") == {}
    with pytest.raises(versions.Deleted):
        registry.resolve("late:2")
    assert registry.history("late", "candidate")[-1].to_version is None


def test_making_and_moving_are_in_the_audit_log(metadata, registry):
    (version,) = made(registry)
    kinds = [event.kind for event in metadata.events()]
    assert kinds == ["version.created", "alias.moved"]
    assert metadata.events(subject=version.id)[0].actor == "ada"


def test_the_outbox_hears_of_a_version_with_its_number_and_of_moves_only_when_mirrored(metadata):
    message = run_message(
        "run_1", experiment="e", name="late", started_us=0, ended_us=1, params={}, metrics={"roc_auc": 0.7, "f1": None}
    )
    Registry(metadata).set_alias("late", "quiet", made(Registry(metadata))[0].id, **ME)
    assert metadata.pending(TOPIC) == []
    registry = Registry(metadata, mirrored=True)
    version = registry.create(run_of(), **ME, message=message)
    registry.set_alias("late", "champion", 2, **ME)
    told = [body for _, body in metadata.pending(TOPIC)]
    assert told[0]["version"] == 2
    assert told[0]["metrics"] == {"roc_auc": 0.7}
    assert told[0]["aliases"] == ["candidate"]
    assert (told[1]["alias"], told[1]["version_id"]) == ("champion", version.id)
