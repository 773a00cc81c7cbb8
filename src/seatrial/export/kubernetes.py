"""Manifests with which Kubernetes runs the image of one release, as plain YAML that people read, change and commit.

One file per object, for `kubectl apply --kustomize`. The release is in the image (`export.docker`), so what a pod
answers with is what its image's name says, a pod needs nothing to start but that image, and going back is the manifest
of before. The image's name is given; no registry is assumed.

Three shapes: a Deployment that is updated in place (rolling); with a `slot`, one of two Deployments beside each other,
of which the Service points to one (blue-green); KServe's InferenceService.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Literal

import msgspec

from seatrial.core.errors import UsageError, listed
from seatrial.export.build_folder import USER, write_files
from seatrial.export.docker import LOCAL, LOG, OBJECTS, PORT, TEMPORARY, hashed_columns, scored_by
from seatrial.releases.bundle import Bundle
from seatrial.stores.personal_key import VARIABLE as PERSONAL_KEY

Slot = Literal["blue", "green"]

DRAIN_SECONDS = 25
"""How long a server answers what has come in, after SIGTERM."""
UNPUBLISH_SECONDS = 5
"""How long a pod that is to end still takes requests, until no Service sends any."""
GRACE_SECONDS = UNPUBLISH_SECONDS + DRAIN_SECONDS + 15
LONGEST = 40
"""Characters of a name: a Service takes 63, and slots and KServe add their own."""

_IMAGE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._:/-]*?)(?::(?P<tag>[A-Za-z0-9_][\w.-]{0,127}))?(?P<digest>@sha256:[0-9a-f]{64})?"
)


class BadImage(UsageError):
    """An image's name cannot be one, or does not say which image."""

    code = "export.bad_image"


class TwoShapes(UsageError):
    """A slot and KServe were asked for at once."""

    code = "export.two_shapes"


class Manifests(msgspec.Struct, frozen=True):
    """What was written.

    name: what the objects are called, a DNS label. files: relative to the folder, sorted. notes: what to know, for
    people; empty when there is nothing. told: which release it is and who approved it, in one line.
    """

    folder: str
    release: str
    model: str
    name: str
    image: str
    files: tuple[str, ...]
    notes: tuple[str, ...]
    told: str = ""


def export(
    bundle: Bundle,
    folder: Path,
    *,
    image: str,
    slot: Slot | None = None,
    kserve: bool = False,
    project: str = "",
) -> Manifests:
    """Write the manifests of one release.

    folder: is made; when it exists it must be empty. It appears whole or not at all.
    image: the name under which a cluster finds the image, with a tag or, better, a digest.
    slot: which of two Deployments this is. project: the name under which an online store on a server keeps features.
    Raises BadImage, TwoShapes, FolderNotEmpty, CannotWrite.
    """
    if slot and kserve:
        raise TwoShapes(
            "a slot and KServe were asked for.",
            expected="KServe keeps the revision of before itself, so it has no slots.",
            state="Nothing was written.",
        )
    pinned = check_image(image)
    manifest = bundle.manifest
    name = dns_label(manifest.model)
    pod = _Pod(bundle, name, f"{name}-{slot}" if slot else name, image, project)
    files = _kserve(pod) if kserve else _objects(pod, slot)
    notes = []
    if name != manifest.model:
        notes.append(f"The objects are called '{name}': '{manifest.model}' is no DNS label.")
    if not pinned:
        notes.append(f"The tag of {image} can be moved to another image: name the digest for a release that stays.")
    if pod.hashes:
        notes.append(f"It hashes {listed(pod.hashes)}: make the secret '{name}-personal' first, as the manifest says.")
    files["README.md"] = _readme(pod, slot, kserve=kserve, notes=notes)
    written = write_files(folder, {path: text.encode() for path, text in files.items()})
    return Manifests(str(folder), bundle.id, manifest.model, name, image, tuple(written), tuple(notes))


def check_image(image: str) -> bool:
    """Whether an image is named by its digest. Raises BadImage for what is no name, or names whatever is newest."""
    found = _IMAGE.fullmatch(image)
    if found is None or len(image) > 1000:
        raise BadImage(
            f"{image[:100]!r} is no name of an image.",
            expected="NAME:TAG or NAME@sha256:DIGEST is expected, as `docker push` took or told it.",
            state="Nothing was written.",
        )
    if not found["digest"] and found["tag"] in (None, "latest"):
        raise BadImage(
            f"{image} names whatever image is newest, not the one with this release.",
            expected="NAME:TAG or NAME@sha256:DIGEST is expected.",
            state="Nothing was written.",
        )
    return bool(found["digest"])


def dns_label(name: str) -> str:
    """The name of a model as one of Kubernetes' objects: two models never get the same one.

    An underscore is a hyphen. What needs more than that, capitals or a length above LONGEST, gets a part of its digest.

    >>> dns_label("late_flights"), dns_label("Late")
    ('late-flights', 'late-0f950d')
    """
    plain = name.replace("_", "-")
    if re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", plain) and "-" not in name and len(plain) <= LONGEST:
        return plain
    letters = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    letters = letters if letters[:1].isalpha() else f"model-{letters}"
    return f"{letters[: LONGEST - 7].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


class _Pod:
    """What the manifests of one release have in common, as blocks of YAML without indentation."""

    def __init__(self, bundle: Bundle, name: str, instance: str, image: str, project: str) -> None:
        manifest = bundle.manifest
        self.release, self.model, self.keyid = bundle.id, manifest.model, bundle.keyid
        self.version, self.semantic_version = manifest.version, manifest.semantic_version
        self.name, self.instance, self.image, self.project = name, instance, image, project
        self.views = [view.name for view in manifest.plan.views]
        self.hashes = hashed_columns(bundle)
        self.selector = f"app.kubernetes.io/name: {name}\napp.kubernetes.io/instance: {instance}"
        self.labels = f"""\
{self.selector}
app.kubernetes.io/version: {_text(manifest.semantic_version)}
app.kubernetes.io/component: prediction-service"""
        self.annotations = f"""\
seatrial/model: {_text(manifest.model)}
seatrial/version: {_text(str(manifest.version))}
seatrial/release: {bundle.id}
seatrial/signed-by: {bundle.keyid}"""
        self.memory = ("512Mi", "1Gi") if scored_by(bundle) else ("256Mi", "512Mi")

    def metadata(self, name: str | None = None) -> str:
        return f"""\
metadata:
  name: {name or self.instance}
  labels:
{_in(self.labels, 4)}
  annotations:
{_in(self.annotations, 4)}"""

    def spec(self, container: str, protocol: str = "") -> str:
        """The body of a pod's spec. protocol: what KServe is told that it speaks."""
        return f"""\
automountServiceAccountToken: false
enableServiceLinks: false
# {UNPUBLISH_SECONDS} s until no Service sends requests here, {DRAIN_SECONDS} s for what has come in, some for the log.
terminationGracePeriodSeconds: {GRACE_SECONDS}
securityContext:
  runAsNonRoot: true
  runAsUser: {USER}
  runAsGroup: {USER}
  fsGroup: {USER}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
topologySpreadConstraints:
{_in(self._spread("topology.kubernetes.io/zone"), 2)}
{_in(self._spread("kubernetes.io/hostname"), 2)}
containers:
  - name: {container}
{_in(self._container(protocol), 4)}
volumes:
  # The prediction log. An emptyDir lives as long as its pod: a process that is killed, or a container that is started
  # again, loses no row. A pod that is deleted or evicted, or whose node is lost, takes its rows with it, all but those
  # that were shipped. At its limit Kubernetes evicts the pod: 2Gi are some eight million rows.
  - name: log
    emptyDir:
      sizeLimit: 2Gi
  # To ship them: optional/log_claim.yaml, these lines, the mount of it and SEATRIAL_LOG_SHIP above. A lost node then
  # takes the last minute; a pod that ends as it should ships the rest first.
  # - name: shipped
  #   persistentVolumeClaim:
  #     claimName: {self.name}-log
  - name: state
    emptyDir:
      sizeLimit: 256Mi
  - name: tmp
    emptyDir:
      medium: Memory
      sizeLimit: 64Mi"""

    def _spread(self, key: str) -> str:
        return f"""\
- maxSkew: 1
  topologyKey: {key}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
{_in(self.selector, 6)}"""

    def _container(self, protocol: str) -> str:
        least, most = self.memory
        return f"""\
image: {_text(self.image)}
imagePullPolicy: IfNotPresent
ports:
  - name: http
    containerPort: {PORT}
    protocol: TCP
{self._environment(protocol)}resources:
  requests:
    cpu: "1"
    memory: {least}
  limits:
    # No limit of CPU: it would make the slowest answers slower, and the request is what a node keeps free.
    memory: {most}
# Three questions. Has it come up? (Golden rows are replayed before it listens.) Asked once a second, for a minute.
startupProbe:
  httpGet:
    path: /health
    port: http
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
# Is the process alive? If not, it is started again; nothing outside of it is asked, so no outage restarts it.
livenessProbe:
  httpGet:
    path: /health
    port: http
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
# Can it answer? If not, it gets no requests until it can.
readinessProbe:
  httpGet:
    path: /ready
    port: http
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
lifecycle:
  preStop:
    exec:
      command: ["sleep", "{UNPUBLISH_SECONDS}"]
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: ["ALL"]
volumeMounts:
  - name: log
    mountPath: {LOG}
  - name: state
    mountPath: {LOCAL}
  - name: tmp
    mountPath: {TEMPORARY}
  # - name: shipped
  #   mountPath: {OBJECTS}"""

    def _environment(self, protocol: str) -> str:
        told = f"  - name: PROTOCOL\n    value: {protocol}\n" if protocol else ""
        if self.views:
            told += f"""\
  # Where {listed(self.views)} are looked up:
  # kubectl create secret generic {self.name}-online --from-literal=url=redis://HOST:PORT/DB
  - name: SEATRIAL_STORES_ONLINE
    valueFrom:
      secretKeyRef:
        name: {self.name}-online
        key: url
  - name: SEATRIAL_NAME
    value: {_text(self.project)}
"""
        if self.hashes:
            told += f"""\
  # The key by which {listed(self.hashes)} get their pseudonyms in the log, the same wherever this release answers:
  # kubectl create secret generic {self.name}-personal --from-literal=key="$(cat .seatrial/keys/personal.key)"
  - name: {PERSONAL_KEY}
    valueFrom:
      secretKeyRef:
        name: {self.name}-personal
        key: key
"""
        return f"""\
env:
  # One process for each core that is asked for below.
  - name: SEATRIAL_WORKERS
    valueFrom:
      resourceFieldRef:
        resource: requests.cpu
  # - name: SEATRIAL_LOG_SHIP
  #   value: 60s
{told}"""


def _objects(pod: _Pod, slot: Slot | None) -> dict[str, str]:
    """The files of a Deployment that is updated in place, or of one of two."""
    service = [] if slot else ["service.yaml"]
    kept_out = "# service.yaml is not among them: applying it is the switch, see README.md\n" if slot else ""
    resources = "\n".join(f"  - {name}" for name in ["deployment.yaml", *service, "autoscaler.yaml", "disruption.yaml"])
    return {
        "kustomization.yaml": f"""\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
{kept_out}resources:
{resources}
  # - optional/network_policy.yaml
  # - optional/service_monitor.yaml
  # - optional/log_claim.yaml
""",
        "deployment.yaml": f"""\
apiVersion: apps/v1
kind: Deployment
{pod.metadata()}
spec:
  # No number of replicas: it is the autoscaler's, and would be set back at each `kubectl apply`.
  revisionHistoryLimit: 5
  minReadySeconds: 5
  progressDeadlineSeconds: 120
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  selector:
    matchLabels:
{_in(pod.selector, 6)}
  template:
    metadata:
      labels:
{_in(pod.labels, 8)}
      annotations:
{_in(pod.annotations, 8)}
        # For a Prometheus that finds pods by these; with optional/service_monitor.yaml take them away.
        prometheus.io/scrape: "true"
        prometheus.io/port: "{PORT}"
        prometheus.io/path: /metrics
    spec:
{_in(pod.spec("server"), 6)}
""",
        "service.yaml": f"""\
apiVersion: v1
kind: Service
metadata:
  name: {pod.name}
  labels:
    app.kubernetes.io/name: {pod.name}
    app.kubernetes.io/component: prediction-service
spec:
  type: ClusterIP
  selector:
{_in(pod.selector, 4)}
  ports:
    - name: http
      port: 80
      targetPort: http
      protocol: TCP
      appProtocol: http
""",
        "autoscaler.yaml": f"""\
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
{pod.metadata()}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: Deployment
    name: {pod.instance}
  minReplicas: 2
  maxReplicas: 10
  metrics:
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: 70
    # By requests instead, where an adapter brings Prometheus' metrics:
    # - type: Pods
    #   pods:
    #     metric:
    #       name: model_predictions_per_second  # sum by (pod) (rate(model_predictions_total[1m]))
    #     target:
    #       type: AverageValue
    #       averageValue: "2000"
  behavior:
    scaleUp:
      stabilizationWindowSeconds: 0
    scaleDown:
      # A pod that goes takes its log volume with it: not for every dip.
      stabilizationWindowSeconds: 600
      policies:
        - type: Pods
          value: 1
          periodSeconds: 60
""",
        "disruption.yaml": f"""\
apiVersion: policy/v1
kind: PodDisruptionBudget
{pod.metadata()}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
{_in(pod.selector, 6)}
""",
        **_optional(pod),
    }


def _optional(pod: _Pod) -> dict[str, str]:
    egress = (
        """\
  egress:
    # Names, and the online store; narrow it to where yours runs.
    - ports:
        - port: 53
          protocol: UDP
        - port: 53
          protocol: TCP
        - port: 6379
          protocol: TCP
"""
        if pod.views
        else "  # It asks nobody for anything.\n  egress: []\n"
    )
    return {
        "optional/network_policy.yaml": f"""\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
{pod.metadata()}
spec:
  podSelector:
    matchLabels:
{_in(pod.selector, 6)}
  policyTypes: ["Ingress", "Egress"]
  ingress:
    - from:
        - podSelector: {{}}
        # and Prometheus, where it runs in another namespace:
        # - namespaceSelector:
        #     matchLabels:
        #       kubernetes.io/metadata.name: monitoring
      ports:
        - port: http
          protocol: TCP
{egress}""",
        "optional/service_monitor.yaml": f"""\
# For the Prometheus operator. Every pod is asked, not one behind the Service.
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {pod.name}
  labels:
    app.kubernetes.io/name: {pod.name}
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: {pod.name}
      app.kubernetes.io/component: prediction-service
  endpoints:
    - port: http
      path: /metrics
      interval: 15s
""",
        "optional/log_claim.yaml": f"""\
# Where pods ship their logs to, when deployment.yaml says so. Without a storageClassName the cluster's default is
# taken, which often cannot be mounted by several nodes; pods would then wait for each other.
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {pod.name}-log
  labels:
    app.kubernetes.io/name: {pod.name}
spec:
  accessModes: ["ReadWriteMany"]
  resources:
    requests:
      storage: 20Gi
""",
    }


def _kserve(pod: _Pod) -> dict[str, str]:
    return {
        "kustomization.yaml": """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - inference_service.yaml
""",
        "inference_service.yaml": f"""\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {pod.name}
  labels:
{_in(pod.labels, 4)}
  annotations:
{_in(pod.annotations, 4)}
    # Kubernetes' own Deployments, without Knative: only there may a pod set what this one sets. Before KServe 0.16 the
    # mode was called RawDeployment.
    serving.kserve.io/deploymentMode: Standard
    serving.kserve.io/autoscalerClass: hpa
spec:
  predictor:
    minReplicas: 2
    maxReplicas: 10
    scaleMetric: cpu
    scaleTarget: 70
    deploymentStrategy:
      type: RollingUpdate
      rollingUpdate:
        maxUnavailable: 0
        maxSurge: 1
{_in(pod.spec("kserve-container", protocol="v2"), 4)}
""",
    }


def _readme(pod: _Pod, slot: Slot | None, *, kserve: bool, notes: list[str]) -> str:
    told = "".join(f"{note}\n" for note in notes)
    first = f"""\
# {pod.model} {pod.semantic_version} on Kubernetes

Release `{pod.release}` (model version {pod.version}, signed by `{pod.keyid}`) in the image `{pod.image}`, which
`seatrial export docker {pod.release}` makes. The release is in the image: to roll out another one, export that one
and apply it.
{told}
"""
    if kserve:
        return f"""{first}\
    kubectl apply --kustomize .
    kubectl wait --for=condition=Ready inferenceservice/{pod.name}

Back: apply the folder of the release before.
"""
    if slot is None:
        return f"""{first}\
    kubectl apply --kustomize .
    kubectl rollout status deployment/{pod.instance}

A new pod takes requests when it is ready, and an old one goes only then; a release that does not come up stops the
rollout, and the pods of before go on answering. Back to the release before:

    kubectl rollout undo deployment/{pod.instance}

or apply the folder of that release, which also keeps the files and the cluster the same.
"""
    other = "green" if slot == "blue" else "blue"
    return f"""{first}\
This is the {slot} one of two. It takes no requests until the Service points to it:

    kubectl apply --kustomize .
    kubectl rollout status deployment/{pod.instance}
    kubectl port-forward deployment/{pod.instance} 8081:{PORT}       # ask it, before anybody else does
    kubectl apply --filename service.yaml                         # the switch

New connections go there at once; one that a client keeps open ends with the pod that it leads to.

Back, while the {other} one still runs, from the folder that it was exported to:

    kubectl apply --filename ../{other}/service.yaml

When there is no way back wanted any more:

    kubectl delete deployment,hpa,pdb {pod.name}-{other}
"""


def _text(value: str) -> str:
    """A scalar that YAML reads as text, whatever is in it."""
    return json.dumps(value)


def _in(block: str, spaces: int) -> str:
    return "\n".join(f"{' ' * spaces}{line}" if line else line for line in block.split("\n"))
