"""What must hold for rendered manifests, and no schema or policy knows: manifests.py RENDERED…

Every kind is validated for the oldest and the newest Kubernetes, or against the operator's own model.
"""

import math
import sys
from importlib import import_module
import tomllib

import yaml
from kubernetes_validate import validate

from wiring import check_everything, check_none, check_wiring, templates as pods

VERSIONS = ("1.30", "1.37")
# Large, so they are loaded only for what needs them.
MODELS = {"keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1", "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1"}
SELECTOR = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}
RECOMMENDED = SELECTOR | {f"app.kubernetes.io/{name}" for name in ("version", "part-of", "managed-by")} | {"helm.sh/chart"}


def unknown(given, known, path=""):
    """Fields that a model has dropped."""
    if isinstance(given, dict) and isinstance(known, dict):
        for name, value in given.items():
            if name not in known:
                yield f"{path}.{name}"
            else:
                yield from unknown(value, known[name], f"{path}.{name}")
    elif isinstance(given, list) and isinstance(known, list):
        for value, other in zip(given, known):
            yield from unknown(value, other, f"{path}[]")


def check_schema(document):
    model = MODELS.get(document["apiVersion"])
    if model is None:
        for version in VERSIONS:
            validate(document, version, strict=True)
        return
    parsed = getattr(import_module(model), document["kind"]).model_validate(document)
    lost = list(unknown(document, parsed.model_dump(by_alias=True, mode="json")))
    assert not lost, f"fields that {document['kind']} does not know: {lost}"


def check_pod(spec, labels):
    assert RECOMMENDED <= labels.keys(), "the pod has the recommended labels"
    assert spec["automountServiceAccountToken"] is False, "no token"
    user = spec["securityContext"]
    assert user["runAsNonRoot"] and user["runAsUser"] > 0, "a numeric user that is not root"
    assert user["seccompProfile"]["type"] == "RuntimeDefault", "the runtime's filter of system calls"
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in spec["containers"]:
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"], "no way to more rights"
        assert rights["capabilities"] == {"drop": ["ALL"]}, "no capabilities"
        resources = container["resources"]
        assert resources["requests"].keys() == {"cpu", "memory"}, "requests of both"
        assert resources["limits"].keys() == {"memory"}, "a limit on memory, none on cpu"
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes, "what is mounted is there, and nothing else"
        for variable in container["env"]:
            assert "URL" not in variable["name"], "no secret in a variable"


def check_deployment(deployment, settings):
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez", "liveness asks neither broker nor database"
    startup = container["startupProbe"]
    assert startup["httpGet"]["path"] == "/startupz", "a start is over when everything was there once"
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1800, "a start waits for broker and database"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz", "readiness asks for both"
    scheme = "HTTPS" if "tls_cert_file" in settings["http"] else "HTTP"
    assert all(container[f"{probe}Probe"]["httpGet"].get("scheme", "HTTP") == scheme for probe in ("startup", "liveness", "readiness")), "probes speak TLS where pods do"
    drain = math.ceil(settings["worker"]["drain_max_ms"] / 1000)
    pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert spec["terminationGracePeriodSeconds"] >= pause + drain + 5, "time to drain, and a margin"
    if container["args"] != ["worker"]:
        assert pause > 0, "requests that still come are answered"
    assert "checksum/config" in deployment["spec"]["template"]["metadata"]["annotations"], "a changed setting rolls the pods"


def check(documents):
    by_kind = {}
    for document in documents:
        check_schema(document)
        by_kind.setdefault(document["kind"], []).append(document)
        labels = document["metadata"]["labels"]
        assert RECOMMENDED <= labels.keys(), f"{document['kind']} has the recommended labels"
        assert document["kind"] != "Secret", "the chart makes no Secret"
    settings = [tomllib.loads(config["data"]["keylane.toml"]) for config in by_kind["ConfigMap"] if "keylane.toml" in config["data"]]
    assert all(other == settings[0] for other in settings), "the migration has the settings of the others"
    settings = settings[0]
    assert all("url" not in table for table in settings.values()), "no address in a ConfigMap"

    deployments = by_kind.get("Deployment", [])
    assert deployments, "something runs"
    check_wiring(by_kind, settings)
    templates = list(pods(by_kind))
    for template in templates:
        check_pod(template["spec"], template["metadata"]["labels"])
    for template in templates:
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        assert ("broker" in volumes) == ("tls_cert_file" in settings["amqp"]), "the broker's client certificate is mounted where it is named"
    for deployment in deployments:
        check_deployment(deployment, settings)
        assert deployment["spec"]["selector"]["matchLabels"].keys() == SELECTOR, "a selector of name, instance and component"
    for kind in ("Service", "PodDisruptionBudget"):
        for document in by_kind.get(kind, []):
            selector = document["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            assert selector.keys() == SELECTOR, f"{kind} selects by name, instance and component"
            matched = [d for d in deployments if selector.items() <= d["spec"]["template"]["metadata"]["labels"].items()]
            assert [d["metadata"]["name"] for d in matched] == [document["metadata"]["name"]], f"{kind} selects one workload"
    budgets = by_kind.get("PodDisruptionBudget", [])
    assert len(budgets) in (0, len(deployments)), "a budget for each workload"

    partitions = settings["amqp"]["partitions"]
    scaled = {document["spec"]["scaleTargetRef"]["name"]: document for document in by_kind.get("ScaledObject", [])}
    split = []
    for deployment in deployments:
        name, (container,) = deployment["metadata"]["name"], deployment["spec"]["template"]["spec"]["containers"]
        assert (name in scaled) != ("replicas" in deployment["spec"]), "KEDA or the chart says how many"
        if container["args"] != ["ingress"]:
            replicas = scaled[name]["spec"]["maxReplicaCount"] if name in scaled else deployment["spec"]["replicas"]
            assert replicas <= partitions, "no more workers than partitions"
            if name in scaled:
                triggers = {trigger["type"] for trigger in scaled[name]["spec"]["triggers"]}
                assert triggers and triggers <= {"rabbitmq", "prometheus"}, "KEDA asks for queue depth, lag, or both"
        split += [v["value"].split(",") for v in container["env"] if v["name"] == "KEYLANE__WORKER__PARTITIONS"]
    if split:
        assert sorted(int(p) for part in split for p in part) == list(range(partitions)), "every partition in one shard"


def main():
    for path in sys.argv[1:]:
        with open(path) as file:
            documents = [document for document in yaml.safe_load_all(file) if document]
        try:
            check(documents)
            if path.endswith("/none.yaml"):
                check_none(documents)
            if path.endswith("/everything.yaml"):
                check_everything(documents)
        except Exception as failure:  # noqa: BLE001 - of whatever kind, it is told with the file's name
            sys.exit(f"{path}: {type(failure).__name__}: {' '.join(str(failure).split())[:500]}")


main()
