"""Manifests are what Kubernetes takes (its own schemas say so), and run the image as its Dockerfile is made."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from seatrial.export import docker, kubernetes
from seatrial.export.build_folder import USER, FolderNotEmpty
from seatrial.export.kubernetes import BadImage, TwoShapes, dns_label, export
from seatrial.features.plan import FeaturePlan
from seatrial.releases.bundle import Bundle, open_bundle, pack
from seatrial.releases.formats import model_file
from seatrial.releases.signing import signing_key, trusted_keys
from seatrial.serving.workers import draining
from tests.releases.factories import manifest_and_files
from tests.releases.test_manifest import VIEW

DIGEST = "late@sha256:" + "0f" * 32
VERSIONS = ["1.27.0", "1.31.0", kubernetes_validate.latest_version()]
WITHOUT_SCHEMA = {"Kustomization", "ServiceMonitor", "InferenceService"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return bundle_of(tmp_path_factory.mktemp("bundle"), *manifest_and_files())


def bundle_of(folder: Path, manifest: Any, files: dict[str, bytes]) -> Bundle:
    path = folder / "late.seatrial"
    path.write_bytes(pack(manifest, files, signing_key(folder / "keys")))
    return open_bundle(path, trusted_keys(folder / "keys"))


def objects(folder: Path) -> dict[str, Any]:
    """What the YAML files of a folder hold, by file."""
    return {str(path.relative_to(folder)): yaml.safe_load(path.read_text()) for path in folder.rglob("*.yaml")}


def pod_of(thing: dict[str, Any]) -> dict[str, Any]:
    return thing["spec"]["template"]["spec"] if thing["kind"] == "Deployment" else thing["spec"]["predictor"]


@pytest.fixture(scope="module")
def rolling(bundle, tmp_path_factory) -> dict[str, Any]:
    where = tmp_path_factory.mktemp("rolling") / "k8s"
    export(bundle, where, image=DIGEST)
    return objects(where)


@pytest.fixture(scope="module")
def kserve(bundle, tmp_path_factory) -> dict[str, Any]:
    where = tmp_path_factory.mktemp("kserve") / "k8s"
    export(bundle, where, image=DIGEST, kserve=True)
    return objects(where)


def validate(thing: dict[str, Any], version: str = VERSIONS[-1]) -> None:
    kubernetes_validate.validate(thing, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_takes(rolling, version):
    kinds = set()
    for thing in rolling.values():
        kinds.add(thing["kind"])
        if thing["kind"] not in WITHOUT_SCHEMA:
            validate(thing, version)
    assert kinds >= {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"}


@pytest.mark.parametrize(
    ("file", "path", "value"),
    [
        ("deployment.yaml", "spec.replicas", "one"),
        ("deployment.yaml", "spec.template.spec.terminationGracePeriodSeconds", "45"),
        ("deployment.yaml", "spec.template.spec.containers.0.readinessProb", {}),
        ("deployment.yaml", "spec.template.spec.containers.0.securityContext.readOnlyRootFilesystem", "yes"),
        ("service.yaml", "spec.ports.0.port", "http"),
        ("autoscaler.yaml", "spec.minReplicas", "two"),
        ("disruption.yaml", "spec.selectors", {}),
        ("optional/network_policy.yaml", "spec.egress", "none"),
        ("optional/log_claim.yaml", "spec.accessModes", "ReadWriteMany"),
    ],
)
def test_a_wrong_value_would_be_found(rolling, file, path, value):
    thing = copy.deepcopy(rolling[file])
    *steps, last = path.split(".")
    part = thing
    for step in steps:
        part = part[int(step)] if step.isdigit() else part[step]
    part[last] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(thing)


def test_live_ready_and_started_are_three_questions(rolling, kserve):
    for thing in (rolling["deployment.yaml"], kserve["inference_service.yaml"]):
        (container,) = pod_of(thing)["containers"]
        asked = {probe: container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}
        assert asked == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}
        (port,) = container["ports"]
        assert {container[f"{probe}Probe"]["httpGet"]["port"] for probe in asked} == {port["name"]}
        assert port["containerPort"] == docker.PORT


def test_a_pod_has_time_for_the_servers_drain(rolling, kserve):
    assert kubernetes.DRAIN_SECONDS == draining.DRAIN_SECONDS
    for thing in (rolling["deployment.yaml"], kserve["inference_service.yaml"]):
        pod = pod_of(thing)
        _, wait = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert pod["terminationGracePeriodSeconds"] > int(wait) + draining.DRAIN_SECONDS


def test_there_are_as_many_workers_as_cores_are_asked_for(rolling, kserve):
    for thing in (rolling["deployment.yaml"], kserve["inference_service.yaml"]):
        (container,) = pod_of(thing)["containers"]
        (workers,) = (one for one in container["env"] if one["name"] == "SEATRIAL_WORKERS")
        assert workers["valueFrom"]["resourceFieldRef"] == {"resource": "requests.cpu"}
        assert "cpu" in container["resources"]["requests"]
        assert "cpu" not in container["resources"]["limits"]


def test_an_update_takes_no_pod_away_before_another_is_ready(rolling, kserve):
    update = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert rolling["deployment.yaml"]["spec"]["strategy"] == update
    assert kserve["inference_service.yaml"]["spec"]["predictor"]["deploymentStrategy"] == update


def test_the_pod_is_as_restricted_as_pod_security_standards_ask(rolling, kserve):
    for thing in (rolling["deployment.yaml"], kserve["inference_service.yaml"]):
        pod = pod_of(thing)
        (container,) = pod["containers"]
        whole, own = pod["securityContext"], container["securityContext"]
        assert (whole["runAsNonRoot"], whole["seccompProfile"]["type"]) == (True, "RuntimeDefault")
        assert (whole["runAsUser"], whole["fsGroup"]) == (USER, USER)
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"] is True
        assert own["allowPrivilegeEscalation"] is False
        assert pod["automountServiceAccountToken"] is False


def test_everything_that_the_image_writes_lies_in_a_volume_of_the_pod(rolling, kserve):
    for thing in (rolling["deployment.yaml"], kserve["inference_service.yaml"]):
        pod = pod_of(thing)
        mounted = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert set(mounted) == {docker.LOG, docker.LOCAL, docker.TEMPORARY}
        assert set(mounted.values()) == {volume["name"] for volume in pod["volumes"]}


def test_the_objects_point_at_each_other(rolling):
    deployment = rolling["deployment.yaml"]
    name, labels = deployment["metadata"]["name"], deployment["spec"]["template"]["metadata"]["labels"]
    assert rolling["autoscaler.yaml"]["spec"]["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": name,
    }
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        rolling["service.yaml"]["spec"]["selector"],
        rolling["disruption.yaml"]["spec"]["selector"]["matchLabels"],
        rolling["optional/network_policy.yaml"]["spec"]["podSelector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in pod_of(deployment)["topologySpreadConstraints"]),
    ]
    assert all(labels.items() >= selector.items() for selector in selectors)
    assert "app.kubernetes.io/version" not in deployment["spec"]["selector"]["matchLabels"]  # it cannot be changed
    monitored = rolling["optional/service_monitor.yaml"]["spec"]["selector"]["matchLabels"]
    assert rolling["service.yaml"]["metadata"]["labels"].items() >= monitored.items()
    for named in rolling["kustomization.yaml"]["resources"]:
        assert named in rolling


def test_the_number_of_pods_is_the_autoscalers_alone(rolling):
    assert "replicas" not in rolling["deployment.yaml"]["spec"]
    assert rolling["autoscaler.yaml"]["spec"]["minReplicas"] == 2


def test_the_two_slots_stand_beside_each_other_and_the_service_of_each_finds_one(bundle, tmp_path):
    for slot in ("blue", "green"):
        export(bundle, tmp_path / slot, image=DIGEST, slot=slot)
    made = {slot: objects(tmp_path / slot) for slot in ("blue", "green")}
    for file in ("deployment.yaml", "autoscaler.yaml", "disruption.yaml"):
        assert len({made[slot][file]["metadata"]["name"] for slot in made}) == 2
    assert len({made[slot]["service.yaml"]["metadata"]["name"] for slot in made}) == 1
    for slot, things in made.items():
        for thing in things.values():
            if thing["kind"] not in WITHOUT_SCHEMA:
                validate(thing)
        found = [
            other
            for other in made
            if made[other]["deployment.yaml"]["spec"]["template"]["metadata"]["labels"].items()
            >= things["service.yaml"]["spec"]["selector"].items()
        ]
        assert found == [slot]
        assert "service.yaml" not in things["kustomization.yaml"]["resources"]  # applying the folder is not the switch
        readme = (tmp_path / slot / "README.md").read_text()
        assert "kubectl apply --filename service.yaml" in readme
        other = "green" if slot == "blue" else "blue"
        assert f"kubectl apply --filename ../{other}/service.yaml" in readme


def test_kserve_is_told_of_a_container_that_speaks_the_open_inference_protocol(kserve):
    thing = kserve["inference_service.yaml"]
    assert (thing["apiVersion"], thing["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    predictor = thing["spec"]["predictor"]
    own = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "deploymentStrategy"}
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container"
    assert {"name": "PROTOCOL", "value": "v2"} in container["env"]
    validate(  # the rest of a predictor is the spec of a pod
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "predictor"},
            "spec": {name: value for name, value in predictor.items() if name not in own},
        }
    )


def test_a_release_that_looks_features_up_is_told_where_by_a_secret(bundle, tmp_path):
    looks_up = looking_up(bundle)
    export(looks_up, tmp_path / "k8s", image=DIGEST, project="flights")
    export(looks_up, tmp_path / "kserve", image=DIGEST, project="flights", kserve=True)
    made = objects(tmp_path / "k8s")
    for thing in (made["deployment.yaml"], objects(tmp_path / "kserve")["inference_service.yaml"]):
        variables = {one["name"]: one for one in pod_of(thing)["containers"][0]["env"]}
        assert variables["SEATRIAL_STORES_ONLINE"]["valueFrom"]["secretKeyRef"] == {"name": "late-online", "key": "url"}
        assert variables["SEATRIAL_NAME"]["value"] == "flights"
    validate(made["deployment.yaml"])
    validate(made["optional/network_policy.yaml"])
    assert made["optional/network_policy.yaml"]["spec"]["egress"]


def looking_up(bundle: Bundle) -> Bundle:
    """The bundle as if its release looked one view up."""
    return replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, plan=FeaturePlan((VIEW,))))


def test_a_release_that_another_process_scores_gets_more_memory(bundle, rolling, tmp_path):
    elsewhere = replace(
        bundle,
        manifest=msgspec.structs.replace(bundle.manifest, model_format="lightgbm"),
        files={**bundle.files, model_file("lightgbm"): b""},
    )
    export(elsewhere, tmp_path / "k8s", image=DIGEST)
    most = [
        pod_of(thing)["containers"][0]["resources"]["limits"]["memory"]
        for thing in (rolling["deployment.yaml"], objects(tmp_path / "k8s")["deployment.yaml"])
    ]
    assert most == ["512Mi", "1Gi"]


@pytest.mark.parametrize(
    "image",
    ["late", "late:latest", "", "late:", "late 1", "-late:1", "late@sha256:00", 'late:1"\n  x: y', "l" * 2000 + ":1"],
)
def test_an_image_that_is_not_one_release_is_refused(bundle, tmp_path, image):
    with pytest.raises(BadImage):
        export(bundle, tmp_path / "k8s", image=image)
    assert not (tmp_path / "k8s").exists()


@pytest.mark.parametrize(
    "image", ["late:1.0.0", "127.0.0.1:5000/team/late:1.0.0", "late:1.0.0@sha256:" + "00" * 32, DIGEST]
)
def test_an_image_stands_in_the_manifests_as_it_was_given(bundle, tmp_path, image):
    done = export(bundle, tmp_path / "k8s", image=image)
    assert pod_of(objects(tmp_path / "k8s")["deployment.yaml"])["containers"][0]["image"] == image
    assert any("tag" in note for note in done.notes) == ("@" not in image)


def test_no_file_names_a_registry(bundle, tmp_path):
    export(bundle, tmp_path / "k8s", image="IMAGE:1")
    for path in (tmp_path / "k8s").rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert set(re.findall(r"^ +image: (.*)", text, re.MULTILINE)) <= {'"IMAGE:1"'}
            assert set(re.findall(r"\w+://\S+", text)) <= {"redis://HOST:PORT/DB"}


def test_a_slot_of_kserve_is_refused(bundle, tmp_path):
    with pytest.raises(TwoShapes):
        export(bundle, tmp_path / "k8s", image=DIGEST, slot="blue", kserve=True)


def test_a_folder_that_holds_something_is_left_alone(bundle, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FolderNotEmpty):
        export(bundle, tmp_path, image=DIGEST)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_same_release_exports_to_the_same_files(bundle, tmp_path):
    one, two = (export(bundle, tmp_path / name, image=DIGEST) for name in ("one", "two"))
    assert one.files == two.files
    for name in one.files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("model", "name"), [("late", "late"), ("late_flights", "late-flights"), ("a1", "a1"), ("x" * 40, "x" * 40)]
)
def test_a_name_that_can_be_kept_is_kept(model, name):
    assert dns_label(model) == name


@given(st.lists(st.text("aAbB_1", min_size=1, max_size=60).map("m".__add__), min_size=2, max_size=2, unique=True))
def test_names_of_models_become_labels_and_no_two_the_same(names):
    labels = [dns_label(name) for name in names]
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", label) and len(label) <= 40 for label in labels)
    assert len(set(labels)) == 2


def test_a_name_that_was_mapped_is_told(bundle, tmp_path):
    other = replace(bundle, manifest=msgspec.structs.replace(bundle.manifest, model="Late_Flights"))
    done = export(other, tmp_path / "k8s", image=DIGEST)
    assert re.fullmatch(r"late-flights-[0-9a-f]{6}", done.name)
    assert any("Late_Flights" in note and done.name in note for note in done.notes)
    annotations = objects(tmp_path / "k8s")["deployment.yaml"]["metadata"]["annotations"]
    assert annotations["seatrial/model"] == "Late_Flights"


def test_lines_are_short_enough_to_read(bundle, tmp_path):
    export(looking_up(bundle), tmp_path / "k8s", image=DIGEST, project="flights")
    for path in (tmp_path / "k8s").rglob("*.yaml"):
        assert [line for line in path.read_text().splitlines() if len(line) > 130] == []


def test_what_was_written_is_json(bundle, tmp_path):
    done = export(bundle, tmp_path / "k8s", image=DIGEST)
    told = json.loads(msgspec.json.encode(done))
    assert told["files"] == sorted(told["files"])
    assert told["release"] == bundle.id


@pytest.mark.parametrize("kserve", [False, True])
def test_a_release_that_hashes_gets_the_key_from_a_secret_and_says_how_to_make_it(tmp_path, kserve):
    manifest, files = manifest_and_files()
    field = manifest.signature.request_names[0]
    signature = msgspec.structs.replace(manifest.signature, personal={field: "hash"})
    hashing = bundle_of(tmp_path, msgspec.structs.replace(manifest, signature=signature), files)
    told = export(hashing, tmp_path / "k8s", image=DIGEST, kserve=kserve)
    (thing,) = [one for one in objects(tmp_path / "k8s").values() if one["kind"] in ("Deployment", "InferenceService")]
    container = pod_of(thing).get("containers", [pod_of(thing).get("model")])[0]
    (given,) = [one for one in container["env"] if one["name"] == "SEATRIAL_PERSONAL_KEY"]
    assert given["valueFrom"]["secretKeyRef"] == {"name": f"{told.name}-personal", "key": "key"}
    assert any(f"{told.name}-personal" in note and field in note for note in told.notes)
    docker.export(
        tmp_path / "late.seatrial",
        tmp_path / "image",
        trusted=trusted_keys(tmp_path / "keys"),
        requirements=["numpy==2.4.0"],
    )
    assert "SEATRIAL_PERSONAL_KEY" in (tmp_path / "image" / "README.md").read_text()


def test_a_release_that_hashes_nothing_asks_for_no_key(rolling):
    assert "SEATRIAL_PERSONAL_KEY" not in json.dumps(rolling)
