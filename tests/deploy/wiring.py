"""What the parts of a rendering promise each other and Helm: check_wiring(by_kind, settings), and what no values at all make."""

import json
import re
from collections import Counter

# Without any values.
NONE = {"ConfigMap": 2, "Deployment": 2, "Job": 1, "NetworkPolicy": 2, "Pod": 1, "PodDisruptionBudget": 2, "Service": 2, "ServiceAccount": 1}


def check_none(documents):
    assert Counter(document["kind"] for document in documents) == NONE, "no values at all make the kinds that they always made"
    for deployment in (document for document in documents if document["kind"] == "Deployment"):
        assert deployment["spec"]["template"]["spec"].get("topologySpreadConstraints"), "pods are spread over nodes and zones"


def check_everything(documents):
    secrets = {
        document["metadata"]["name"]: volume["secret"]["secretName"]
        for document in documents
        if document["kind"] == "Deployment"
        for volume in document["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "secrets"
    }
    assert secrets == {"shop-lane-worker": "shop", "shop-lane-ingress": "123"}, "each has the secret that is meant for it"


def templates(by_kind):
    for document in by_kind.get("Deployment", []) + by_kind.get("Job", []):
        yield document["spec"]["template"]
    yield from by_kind.get("Pod", [])


def check_hooks(by_kind):
    for job in by_kind.get("Job", []):
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade", "the migration comes before everything else"
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["args"] == ["migrate"], "the migration migrates"
    (doctor,) = by_kind["Pod"]
    assert doctor["metadata"]["annotations"]["helm.sh/hook"] == "test", "helm test runs the doctor"
    assert doctor["spec"]["containers"][0]["args"] == ["doctor"], "helm test runs the doctor"


def check_rolls(by_kind):
    for deployment in by_kind["Deployment"]:
        rolling = deployment["spec"]["strategy"]["rollingUpdate"]
        assert rolling == {"maxSurge": 1, "maxUnavailable": 0}, "a new pod stands by before an old one goes"
    for budget in by_kind.get("PodDisruptionBudget", []):
        assert str(budget["spec"]["maxUnavailable"]) not in ("0", "0%"), "a budget lets somebody go"
    for account in by_kind["ServiceAccount"]:
        assert account["automountServiceAccountToken"] is False, "no token for a service account"


def check_network(by_kind):
    for service in by_kind["Service"]:
        (port,) = service["spec"]["ports"]
        assert (port["name"], port["targetPort"]) == ("http", "http"), "a Service leads to the port http"
    for deployment in by_kind["Deployment"]:
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert [port["name"] for port in container["ports"]] == ["http"], "a pod names the port http"
    for policy in by_kind.get("NetworkPolicy", []):
        ports = [port for rule in policy["spec"]["egress"] for port in rule["ports"]]
        assert {"port": 53, "protocol": "UDP"} in ports, "pods may ask DNS"


def check_mounts(by_kind, settings):
    """Files that are mounted for the settings are those that the settings name."""
    named = {value for table in settings.values() for value in table.values() if isinstance(value, str) and value.startswith("/etc/")}
    for template in templates(by_kind):
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        (container,) = template["spec"]["containers"]
        variables = {variable["name"]: variable.get("value", "") for variable in container["env"]}
        paths = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        for name, volume in volumes.items():
            items = volume.get("secret", {}).get("items")
            files = [item["path"] for item in items] if items else ["tls.crt", "tls.key"] if "secret" in volume else []
            unread = {f"{paths[name]}/{file}" for file in files} - named - set(variables.values())
            assert not unread, f"what is mounted is read: {sorted(unread)}"


def check_monitoring(by_kind):
    for monitor in by_kind.get("ServiceMonitor", []):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        assert all(wanted <= service["metadata"]["labels"].items() for service in by_kind["Service"]), "the monitor finds every Service"
        assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == ["http"], "the monitor asks the port http"
    for config in by_kind["ConfigMap"]:
        for name, text in config["data"].items():
            assert not name.endswith(".json") or json.loads(text)["panels"], "a dashboard has panels"
    commands = {document["spec"]["template"]["spec"]["containers"][0]["args"][0] for document in by_kind["Deployment"]}
    scaled_to_none = any(document["spec"]["minReplicaCount"] == 0 for document in by_kind.get("ScaledObject", []))
    for rule in by_kind.get("PrometheusRule", []):
        alerts = {alert["alert"]: alert["expr"] for group in rule["spec"]["groups"] for alert in group["rules"]}
        nobody = alerts.get("KeylaneNoWorker")
        if scaled_to_none or commands == {"ingress"}:
            assert nobody is None, "nobody is missed where there may be no worker"
        else:
            assert nobody == f'absent(keylane_partitions_held{{namespace="{rule["metadata"]["namespace"]}"}})', "a worker is missed here, whoever runs elsewhere"


def check_scaler(by_kind, settings):
    prefix = settings["amqp"]["prefix"]
    for document in by_kind.get("ScaledObject", []):
        for trigger in document["spec"]["triggers"]:
            if trigger["type"] == "rabbitmq":
                queues = re.compile(trigger["metadata"]["queueName"])
                assert queues.search(f"{prefix}.1.003") and queues.search(f"{prefix}.17.999"), "KEDA counts the partitions"
                others = (f"{prefix}.held", f"{prefix}.dead", f"{prefix}x1.003", f"other.{prefix}.1.003", f"{prefix}.1.003.copy")
                assert not any(queues.search(queue) for queue in others), "KEDA counts nothing else"


def check_authorities(by_kind):
    """Whoever is given an authority of their own measures the other side against it."""
    own = set()
    for template in templates(by_kind):
        variables = {variable["name"]: variable.get("value") for variable in template["spec"]["containers"][0]["env"]}
        own.add("PGSSLROOTCERT" in variables)
        assert "PGSSLROOTCERT" not in variables or variables["PGSSLMODE"] in ("verify-ca", "verify-full"), "the database is measured against the CA"
    assert len(own) == 1, "all trust the same authorities"
    configs = {config["metadata"]["name"]: config["data"] for config in by_kind["ConfigMap"]}
    for authentication in by_kind.get("TriggerAuthentication", []):
        given = {target["parameter"] for target in authentication["spec"]["secretTargetRef"]}
        words = {word["parameter"]: configs[word["name"]][word["key"]] for word in authentication["spec"].get("configMapTargetRef", [])}
        assert ("ca" in given) == own.pop() == (words == {"tls": "enable"}), "KEDA trusts the same authorities"


def check_wiring(by_kind, settings):
    check_authorities(by_kind)
    check_hooks(by_kind)
    check_rolls(by_kind)
    check_network(by_kind)
    check_mounts(by_kind, settings)
    check_monitoring(by_kind)
    check_scaler(by_kind, settings)
