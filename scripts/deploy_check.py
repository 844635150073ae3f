#!/usr/bin/env python3
"""What `make deploy-check` checks: each check is a function that raises where something is wrong, and returns what it saw.

    deploy_check.py FLEETBUS CACHE

FLEETBUS is the binary, CACHE the folder into which scripts/deploy-tools.sh puts the tools.
"""

import base64
import binascii
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

from deploy_values import POLLED, REFUSED, TAKEN

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHART = ROOT / "helm/fleetbus"
EXAMPLE = ROOT / "helm/examples/app-with-sidecar"
FLEETBUS, FLEETBUS_CACHE = (pathlib.Path(argument) for argument in sys.argv[1:3])
HELM, STRICT, ACTIONLINT = (FLEETBUS_CACHE / "bin" / tool for tool in ("deploy-helm", "deploy-strict", "deploy-actionlint"))
PYTHON_BIN = pathlib.Path(sys.executable).parent
MODES = ["instances", "deployment", "sidecar"]
# The oldest version that the chart takes, and the newest whose schemas are there.
KUBERNETES = ["1.29", "1.37"]
OPERATORS_KINDS = {"HTTPRoute", "ServiceMonitor", "PrometheusRule"}


class Wrong(Exception):
    """What a check found."""


def run(*command, cwd=ROOT, env=None):
    """Runs a program; its output, where it succeeds."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Wrong(f"{pathlib.Path(str(command[0])).name} {' '.join(map(str, command[1:3]))}: {done.stdout}{done.stderr}".strip())
    return done.stdout


class Unique(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML takes the last."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise Wrong(f"{key} is there twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def render(values, *more, chart=CHART, release="release"):
    """The manifests of a chart with these values: (text, documents)."""
    files = ["--values", ROOT / f"helm/checks/{values}.yaml"] if values else []
    text = run(HELM, "template", release, chart, "--namespace", "fleet", "--kube-version", KUBERNETES[-1], *files, *more)
    return text, [document for document in yaml.load_all(text, Unique) if document]


def pods(documents):
    """Each pod that would run, as (name, spec)."""
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "Pod":
            yield name, document["spec"]
        elif document["kind"] in ("StatefulSet", "Deployment"):
            yield name, document["spec"]["template"]["spec"]


def example(release="release"):
    """The example's manifests, with the chart of this checkout."""
    run(HELM, "dependency", "update", EXAMPLE)
    return render(None, chart=EXAMPLE, release=release)


def rendered():
    """Every mode, and the example."""
    yield from ((mode, *render(mode)) for mode in MODES)
    yield ("app-with-sidecar", *example())


def chart_is_made():
    run(sys.executable, ROOT / "scripts/helm_values.py", "--check")
    return "values.schema.json, helm-values.md and the copies in files/ are what their sources say"


def chart_lints():
    for mode in MODES:
        run(HELM, "lint", "--strict", CHART, "--kube-version", KUBERNETES[-1], "--values", ROOT / f"helm/checks/{mode}.yaml")
    run(HELM, "dependency", "update", EXAMPLE)
    run(HELM, "lint", "--strict", EXAMPLE, "--kube-version", KUBERNETES[-1])
    return f"helm lint --strict, {len(MODES)} modes and the example"


def validate(name, documents, versions):
    """Core kinds by the schemas of Kubernetes, others by their own types."""
    own = [document for document in documents if document["kind"] in OPERATORS_KINDS]
    core = [document for document in documents if document["kind"] not in OPERATORS_KINDS]
    with tempfile.TemporaryDirectory() as folder:
        for kind, part in (("own", own), ("core", core)):
            (pathlib.Path(folder) / f"{kind}.yaml").write_text(yaml.safe_dump_all(part))
        for version in versions:
            said = run(PYTHON_BIN / "kubernetes-validate", "--strict", "-k", version, f"{folder}/core.yaml")
            if "Couldn't find schema" in said:
                raise Wrong(f"{name}: {said}")
        if own:
            run(STRICT, "kinds", f"{folder}/own.yaml")


def manifests_are_valid():
    seen = 0
    for name, _, documents in rendered():
        validate(name, documents, KUBERNETES)
        seen += len(documents)
    return f"{seen} manifests, strictly, Kubernetes {' and '.join(KUBERNETES)}, Gateway API and Prometheus operator by their own types"


def pods_are_restricted():
    seen = 0
    for name, _, documents in rendered():
        for pod, spec in pods(documents):
            inside = spec.get("securityContext", {})
            for host in ("hostNetwork", "hostPID", "hostIPC"):
                if spec.get(host):
                    raise Wrong(f"{name}: {pod}: {host}")
            if spec.get("automountServiceAccountToken") is not False:
                raise Wrong(f"{name}: {pod} mounts a token of Kubernetes")
            for volume in spec.get("volumes", []):
                if not set(volume) - {"name"} <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}:
                    raise Wrong(f"{name}: {pod}: volume {volume['name']} is not of a restricted kind")
            for container in spec["containers"] + spec.get("initContainers", []):
                own = container.get("securityContext", {})
                holds = {
                    "runAsNonRoot": own.get("runAsNonRoot", inside.get("runAsNonRoot")) is True,
                    "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
                    "capabilities": own.get("capabilities", {}) == {"drop": ["ALL"]},
                    "seccompProfile": (own.get("seccompProfile") or inside.get("seccompProfile")) == {"type": "RuntimeDefault"},
                    "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
                    "resources": "memory" in container.get("resources", {}).get("limits", {}),
                }
                for rule, held in holds.items():
                    if not held:
                        raise Wrong(f"{name}: {pod}: container {container['name']}: {rule}")
                seen += 1
    return f"{seen} containers at the restricted level, with a read-only root and a bound on memory"


def users_are_the_clusters_to_choose():
    seen = 0
    for mode in MODES:
        _, documents = render(mode, *options([f"podSecurityContext.{key}=null" for key in ("runAsUser", "runAsGroup", "fsGroup")]))
        for pod, spec in pods(documents):
            contexts = [spec["securityContext"], *(container["securityContext"] for container in spec["containers"])]
            if not all(context["runAsNonRoot"] for context in contexts):
                raise Wrong(f"{mode}: {pod} may run as root")
            if found := {"runAsUser", "runAsGroup", "fsGroup"} & {key for context in contexts for key in context}:
                raise Wrong(f"{mode}: {pod} has {found}, which was taken away")
            seen += 1
    return f"{seen} pods without numbers of their own where these are null, as OpenShift's restricted-v2 wants it"


def tests_run_where_bridges_do():
    seen = 0
    term = {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}
    nodes = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    apart = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "kubernetes.io/hostname"}]}
    affinity = {"nodeAffinity": nodes, "podAntiAffinity": apart}
    _, documents = render("instances", "--set-json", f"affinity={json.dumps(affinity)}")
    specs = dict(pods(documents))
    for name, test in specs.items():
        if not name.startswith("Pod/"):
            continue
        bridge = specs[f"StatefulSet/{name.removeprefix('Pod/').removesuffix('-test')}"]
        for key in ("nodeSelector", "tolerations"):
            if not test.get(key) or test[key] != bridge[key]:
                raise Wrong(f"{name} has the {key} {test.get(key)}, and its bridge {bridge[key]}")
        if test.get("affinity") != {"nodeAffinity": nodes}:
            raise Wrong(f"{name} must keep to what is said about nodes, and not about other pods: {test.get('affinity')}")
        seen += 1
    return f"{seen} pods of `helm test` with the nodeSelector and the tolerations of their bridges"


def nats_credentials():
    """A credentials file as NATS has it, of nobody: the check looks at its form, and at the sum of its seed."""
    raw = bytes([18 << 3 | 20 >> 2, (20 << 3 & 31) << 3]) + bytes(32)
    seed = base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")
    parts = [("NATS USER JWT", "a.b.c"), ("USER NKEY SEED", seed)]
    return "\n".join(f"-----BEGIN {name}-----\n{text}\n------END {name}------\n" for name, text in parts)


def configurations_are_valid():
    """`fleetbus check` of each configuration, with the secrets that the pod mounts."""
    seen = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, _, documents in rendered():
            mounted = set()
            for _, spec in pods(documents):
                for volume in spec.get("volumes", []):
                    for source in volume.get("projected", {}).get("sources", []):
                        mounted |= {f"fleetbus/{item['path']}" for item in source["secret"]["items"]}
                    if volume["name"] == "fleetbus-tls":
                        mounted |= {"fleetbus-tls/tls.crt", "fleetbus-tls/tls.key"}
            secrets = pathlib.Path(folder) / name
            for path in mounted:
                (secrets / path).parent.mkdir(parents=True, exist_ok=True)
                (secrets / path).write_text(nats_credentials() if path.endswith(".creds") else "a-secret")
            if "fleetbus-tls/tls.crt" in mounted:
                # The check reads them as a start would.
                pair = [secrets / "fleetbus-tls" / name for name in ("tls.key", "tls.crt")]
                run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=fleet", "-keyout", pair[0], "-out", pair[1])
            for document in documents:
                text = document.get("data", {}).get("fleetbus.yaml") if document["kind"] == "ConfigMap" else None
                if text is None:
                    continue
                if name == "sidecar":
                    # Its pod is the application's: what it must mount is seen in the example.
                    for path in re.findall(r"/run/secrets/([^\"]+)", text):
                        (secrets / path).parent.mkdir(parents=True, exist_ok=True)
                        (secrets / path).write_text("a-secret")
                file = pathlib.Path(folder) / "fleetbus.yaml"
                file.write_text(text.replace("/run/secrets", str(secrets)))
                run(FLEETBUS, "check", "--config", file, env={"BETA_TOKEN": "a-secret"})
                seen += 1
    return f"{seen} rendered configurations pass `fleetbus check`, with no more secrets than their pod mounts"


def nothing_but_webhooks_is_routed():
    seen = 0
    for _, _, documents in rendered():
        services = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Service"}
        for document in documents:
            backends = []
            if document["kind"] == "Ingress":
                for path in (path for rule in document["spec"]["rules"] for path in rule["http"]["paths"]):
                    backends.append((path["path"], path["pathType"], path["backend"]["service"]["name"]))
            if document["kind"] == "HTTPRoute":
                for rule in document["spec"]["rules"]:
                    for match in rule["matches"]:
                        backends.append((match["path"]["value"], match["path"]["type"], rule["backendRefs"][0]["name"]))
            for path, kind, service in backends:
                ports = [port["name"] for port in services[service]["spec"]["ports"]]
                if not path.startswith("/webhooks/") or kind not in ("Prefix", "PathPrefix") or ports != ["webhooks"]:
                    raise Wrong(f"{document['kind']} routes {kind} {path} to {service} with {ports}")
                seen += 1
    return f"{seen} routes, each the path of an account to a service of the webhook port"


def routes_fit_a_gateway():
    """A route has 16 rules at most, of 128 matches in all, and a rule eight by the first edition of the Gateway API."""
    pushed = {"provider": "linxup", "webhook": {"token": {"env": "TOKEN"}}}
    sizes = {"large": 300, **{f"small{n}": 1 for n in range(17)}}
    units = [{"name": name, "accounts": [{"id": f"{name}_{n}", **pushed} for n in range(size)]} for name, size in sizes.items()]
    polled = {"name": "polled", "accounts": json.loads(POLLED.removeprefix("accounts="))}
    values = {"instances": [*units, polled], "gateway": {"enabled": True, "parentRefs": [{"name": "public"}]}}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        _, documents = render(None, "--values", file.name)
    names, routed = set(), {}
    for route in (document for document in documents if document["kind"] == "HTTPRoute"):
        names.add(route["metadata"]["name"])
        rules = route["spec"]["rules"]
        if not 1 <= len(rules) <= 16 or not all(1 <= len(rule["matches"]) <= 8 for rule in rules):
            raise Wrong(f"{route['metadata']['name']} has rules with {[len(rule['matches']) for rule in rules]} matches")
        for rule in rules:
            routed |= {match["path"]["value"]: rule["backendRefs"][0]["name"] for match in rule["matches"]}
    of = "release-fleetbus"
    if names != {f"{of}-large", f"{of}-large.2", f"{of}-large.3", *(f"{of}-small{n}" for n in range(17))}:
        raise Wrong(f"the routes are {sorted(names)}")
    if routed != {f"/webhooks/{account['id']}": f"{of}-{unit['name']}" for unit in units for account in unit["accounts"]}:
        raise Wrong("not every account is routed to its own process")
    (alone,) = [document for document in render("sidecar")[1] if document["kind"] == "HTTPRoute"]
    if alone["metadata"]["name"] != of:
        raise Wrong(f"the route of one process is {alone['metadata']['name']}")
    return f"{len(routed)} accounts of {len(units)} processes in {len(names)} routes"


def notes_name_mounted_tokens():
    with tempfile.TemporaryDirectory() as folder:
        chart = pathlib.Path(folder) / "fleetbus"
        shutil.copytree(CHART, chart)
        # Helm shows notes where there is a cluster: here they are part of a manifest.
        notes = (chart / "templates/NOTES.txt").read_text()
        (chart / "templates/_notes.tpl").write_text(f'{{{{ define "notes" }}}}{notes}{{{{ end }}}}')
        (chart / "templates/notes.yaml").write_text('{kind: Notes, metadata: {name: notes}, text: {{ include "notes" . | toJson }}}')
        for mode, secrets in (("instances", ["fleetbus-admin/token"] * 2), ("deployment", [])):
            text, documents = render(mode, chart=chart)
            (notes,) = [document["text"] for document in documents if document["kind"] == "Notes"]
            named = re.findall(r"--token-file /run/secrets/fleetbus/(\S+)", notes)
            if named != secrets or any(f'path: "{secret}"' not in text for secret in secrets):
                raise Wrong(f"{mode}: the notes name {named}")
        gateway = ["ingress.enabled=false", "gateway.enabled=true", 'gateway.parentRefs=[{"name": "public"}]']
        hosts = 'gateway.hostnames=["a.example.com", "b.example.com"]'
        for settings, addresses in (
            (["ingress.enabled=false"], ["http://release-fleetbus:8080"]),
            ([], ["http://fleet.example.com"]),
            ([*gateway, hosts], ["http(s)://a.example.com", "http(s)://b.example.com"]),
            (gateway, ["http(s)://the-hosts-of-Gateway-public"]),
        ):
            (notes,) = [d["text"] for d in render("deployment", *options(settings), chart=chart)[1] if d["kind"] == "Notes"]
            named = re.findall(r"^Webhooks of acme: +(\S+)/webhooks/acme$", notes, re.MULTILINE)
            if named != addresses:
                raise Wrong(f"{settings}: the notes say that webhooks go to {named}")
    return "what Helm prints names the admin token's file where there is one and the pod mounts it, and the hosts of Ingress and Gateway"


def stops_are_waited_for():
    bounds = {}
    source = (ROOT / "src/app.rs").read_text()
    for name in ("FINISH", "FLUSH"):
        found = re.search(rf"const {name}: Duration = Duration::from_secs\((\d+)\);", source)
        if not found:
            raise Wrong(f"src/app.rs has no {name}: look how long a stop may take, and at fleetbus.grace in _config.tpl")
        bounds[name] = int(found.group(1))
    # Connections, deliveries and threads have FINISH each, the bus and the tasks FLUSH each.
    most = 3 * bounds["FINISH"] + 2 * bounds["FLUSH"]
    if most > 55:
        raise Wrong(f"a stop may take {most} s beside drain_delay, and the chart waits for 55")
    for mode, expected in (("instances", 65), ("deployment", 60)):
        for pod, spec in pods(render(mode)[1]):
            if "-test" not in pod and spec["terminationGracePeriodSeconds"] != expected:
                raise Wrong(f"{mode}: {pod} waits {spec['terminationGracePeriodSeconds']} s, not {expected}")
    return f"terminationGracePeriodSeconds is drain_delay and 55 s, for a stop of {most} s at most"


def sidecar_is_native():
    _, documents = example()
    (spec,) = [spec for name, spec in pods(documents) if name.startswith("StatefulSet")]
    (sidecar,) = spec["initContainers"]
    if sidecar.get("restartPolicy") != "Always":
        raise Wrong("the sidecar is no native sidecar")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe not in sidecar:
            raise Wrong(f"the sidecar has no {probe}")
    volumes = {volume["name"] for volume in spec["volumes"]}
    (document,) = [document for document in documents if document["kind"] == "StatefulSet"]
    volumes |= {claim["metadata"]["name"] for claim in document["spec"]["volumeClaimTemplates"]}
    for mount in sidecar["volumeMounts"]:
        if mount["name"] not in volumes:
            raise Wrong(f"the sidecar mounts {mount['name']}, which the pod has not")
    return "the example's sidecar starts first, restarts by itself, has three probes and a claim"


def sidecars_services_find_their_pod():
    """Of two releases of the example in one namespace, each its own; ready or not."""
    made = {release: example(release)[1] for release in ("one", "two")}
    labels = {}
    for release, documents in made.items():
        (document,) = [document for document in documents if document["kind"] == "StatefulSet"]
        labels[release] = document["spec"]["template"]["metadata"]["labels"]
        services = {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "Service"}
        if services.get(document["spec"]["serviceName"], {}).get("clusterIP") != "None":
            raise Wrong(f"the example's StatefulSet has no Service {document['spec']['serviceName']} without an address")
    seen = 0
    for release, documents in made.items():
        for service in (document for document in documents if document["kind"] == "Service"):
            selector = service["spec"]["selector"].items()
            found = [other for other, held in labels.items() if selector <= held.items()]
            if found != [release]:
                raise Wrong(f"{service['metadata']['name']} of release {release} finds the pods of {found}")
            seen += 1
    for mode, expected in (("sidecar", True), ("deployment", False)):
        (spec,) = [d["spec"] for d in render(mode)[1] if d["kind"] == "Service" and not d["metadata"]["name"].endswith("-admin")]
        if spec.get("publishNotReadyAddresses", False) != expected:
            raise Wrong(f"{mode}: publishNotReadyAddresses of the webhooks' Service is not {expected}")
    return f"{seen} services of two releases, each with the pod of its own; webhooks do not wait for the application"


def options(settings):
    """What sets them."""
    for setting in settings:
        is_json = re.match(r'[^=]+=[\["{]', setting)
        yield from ("--set-json" if is_json else "--set", setting)


def refuse(mode, settings, said, release="release"):
    try:
        render(mode, *options(settings), release=release)
    except Wrong as refused:
        if said not in str(refused):
            raise Wrong(f"{mode} with {settings} is refused, but not for `{said}`: {refused}") from None
    else:
        raise Wrong(f"{mode} with {settings} is taken, and should be refused for `{said}`")


def wrong_values_are_refused():
    for mode, settings, said in REFUSED:
        refuse(mode, settings, said)
    refuse("deployment", [], "123-fleetbus is no name of a Service", release="123")
    return f"{len(REFUSED) + 1} wrong values, each refused for its reason"


def right_values_are_taken():
    """As a release whose name looks like a number."""
    for mode, settings, made in TAKEN:
        text, documents = render(mode, "--set", "fullnameOverride=fleet", *options(settings), release="123")
        if made not in text:
            raise Wrong(f"{mode} with {settings} does not render `{made}`")
        validate(f"{mode} with {settings}", documents, KUBERNETES[-1:])
    return f"{len(TAKEN)} sets of values that are unset, look like numbers or are just large enough"


def image_copies_what_is_there():
    text = (ROOT / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = [line[1:] for line in ignored if line.startswith("!")]
    if "*" not in ignored:
        raise Wrong(".dockerignore does not begin with nothing")
    copied = []
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        copied += line.split()[:-1]
    for path in copied:
        if not (ROOT / path).exists():
            raise Wrong(f"the Dockerfile copies {path}, which is not there")
        if not any(path == one or path.startswith(f"{one}/") for one in allowed):
            raise Wrong(f"the Dockerfile copies {path}, which .dockerignore leaves out")
    for instruction in ("USER 65532:65532", 'VOLUME ["/data"]', "HEALTHCHECK", "STOPSIGNAL SIGTERM", "org.opencontainers.image.revision"):
        if instruction not in text:
            raise Wrong(f"the Dockerfile has no {instruction}")
    with tempfile.TemporaryDirectory() as folder:
        for path in copied:
            target = pathlib.Path(folder) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if path == "src":
                target.mkdir()
                (target / "main.rs").write_text("fn main() {}")
                (target / "lib.rs").touch()
            elif (ROOT / path).is_dir():
                shutil.copytree(ROOT / path, target)
            else:
                shutil.copy(ROOT / path, target)
        for edit in re.findall(r"^RUN (sed -Ei .+ Cargo\.toml)$", text, re.MULTILINE):
            run("sh", "-c", edit, cwd=folder)
        # Each target that the manifest names must be there.
        run("cargo", "metadata", "--locked", "--offline", "--no-deps", "--format-version", "1", cwd=folder)
    for path in (ROOT / "src").rglob("*.rs"):
        for included in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', path.read_text()):
            held = (path.parent / included).resolve()
            if not any(held.is_relative_to(ROOT / one) for one in copied):
                raise Wrong(f"{path.relative_to(ROOT)} includes {included}, which the Dockerfile does not copy")
    toolchain = re.search(r'rust-version = "([^"]+)"', (ROOT / "Cargo.toml").read_text()).group(1)
    if f"ARG RUST_VERSION={toolchain}" not in text:
        raise Wrong(f"the Dockerfile does not build with Rust {toolchain}")
    return f"the Dockerfile copies {' '.join(copied)}, and .dockerignore lets no more in"


def compose_starts_what_it_says():
    file = ROOT / "docker-compose.yml"
    always = {"grafana", "prometheus"}
    of = {bus: {bus, f"fleetbus-{bus}", f"simulator-{bus}"} for bus in ("kafka", "nats")}
    for profiles, expected in (([], of["kafka"] | of["nats"]), (["kafka"], of["kafka"]), (["nats"], of["nats"])):
        services = set(run(STRICT, "compose", *profiles, file).split())
        if services != always | expected:
            raise Wrong(f"profiles {profiles}: {services}")
    for bus in of:
        run(FLEETBUS, "check", "--config", ROOT / f"deploy/compose/fleetbus-{bus}.yaml", env={"SIMULATED_TOKEN": "simulated"})
    for path in sorted((ROOT / "deploy/compose").rglob("*.y*ml")):
        yaml.safe_load(path.read_text())
    services = yaml.safe_load(file.read_text())["services"]
    tags = [service.get("image", name) for name, service in services.items() if "build" in service]
    if len(tags) != len(set(tags)):
        raise Wrong(f"two builds export one tag at once, and the first of them fails: {tags}")
    for name, service in services.items():
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                raise Wrong(f"{name} is open to the network: {port}")
        if not name.startswith("simulator") and "fleetbus" not in name and name != "grafana" and "healthcheck" not in service:
            raise Wrong(f"{name} has no health check")
    return "read by compose-go, with both buses, with Kafka only, with NATS only; both bridges' files pass `fleetbus check`"


def nats_takes_its_configuration():
    servers = sorted(FLEETBUS_CACHE.glob("bin/nats-server-*"))
    if not servers:
        raise Wrong("nats-server is missing: run `make brokers`")
    run(servers[-1], "--config", ROOT / "deploy/compose/nats.conf", "-t")
    return f"{servers[-1].name} takes deploy/compose/nats.conf"


def alerts_and_dashboard_are_in_the_chart():
    text, documents = render("deployment", "--set", "prometheusRule.enabled=true", "--set", "dashboard.enabled=true")
    (rule,) = [document for document in documents if document["kind"] == "PrometheusRule"]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(rule, file)
        file.flush()
        run(STRICT, "kinds", file.name)
    alerts = [one["alert"] for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one]
    source = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
    if rule["spec"] != source:
        raise Wrong("the rules of the chart are not those of deploy/prometheus/alerts.yaml")
    jobs = set(re.findall(r'job="([^"]+)"', (ROOT / "deploy/prometheus/alerts.yaml").read_text()))
    scraped = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text())["scrape_configs"]
    (monitor,) = [document for document in render("instances")[1] if document["kind"] == "ServiceMonitor"]
    relabeled = {rule["replacement"] for rule in monitor["spec"]["endpoints"][0]["relabelings"] if rule["targetLabel"] == "job"}
    if not jobs <= relabeled or not jobs <= {one["job_name"] for one in scraped}:
        raise Wrong(f"the alerts ask for {jobs}; the ServiceMonitor gives {relabeled}")
    (shown,) = [d for d in documents if d["kind"] == "ConfigMap" and d["metadata"]["name"].endswith("-dashboard")]
    dashboard = json.loads(shown["data"]["fleetbus.json"])
    if dashboard != json.loads((ROOT / "deploy/grafana/fleetbus.json").read_text()):
        raise Wrong("the dashboard of the chart is not deploy/grafana/fleetbus.json")
    sources = set(re.findall(r'"uid": ?"([^"]+)"', (ROOT / "deploy/grafana/fleetbus.json").read_text()))
    return f"{len(alerts)} alerts as a PrometheusRule, and the dashboard ({len(dashboard['panels'])} panels; sources {' '.join(sorted(sources))})"


def licences_are_collected():
    run(sys.executable, ROOT / "scripts/licenses.py", "--check")
    return "what `fleetbus licenses` prints is what Cargo.lock links, on x86-64 and arm64"


def workflows_are_valid():
    run(ACTIONLINT, cwd=ROOT)
    names = sorted(path.name for path in (ROOT / ".github/workflows").glob("*.yml"))
    for path in sorted((ROOT / ".github").rglob("*.yml")):
        yaml.safe_load(path.read_text())
    version = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
    run(ROOT / "scripts/release-notes.sh", f"v{version}")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    if (chart["version"], chart["appVersion"]) != (version, version):
        raise Wrong(f"Chart.yaml says {chart['version']} and {chart['appVersion']}, Cargo.toml {version}")
    for path in sorted((ROOT / "scripts").glob("*.sh")) + [ROOT / "deploy/image/root.sh"]:
        run("bash" if path.name != "root.sh" else "sh", "-n", path)
    return f"actionlint: {' '.join(names)}; crate, chart and changelog agree on {version}; every script parses"


def examples_of_the_pages_are_values():
    """Each YAML block of the pages that is values of the chart, rendered: alone, or upon those of a mode."""
    seen = 0
    known = set(yaml.safe_load((CHART / "values.yaml").read_text()))
    for page in ("deploy", "upgrade"):
        text = (ROOT / f"docs/{page}.md").read_text()
        for block in re.findall(r"^```yaml\n(.+?)^```", text, re.MULTILINE | re.DOTALL):
            if "{{" in block:
                continue
            values = yaml.safe_load(block)
            if not set(values) <= known:
                continue
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(block)
                file.flush()
                render(None if "instances" in values else "deployment", "--values", file.name)
            seen += 1
    if seen < 4:
        raise Wrong(f"only {seen} examples were found")
    return f"{seen} examples of docs/deploy.md and docs/upgrade.md render"


CHECKS = [
    chart_is_made,
    chart_lints,
    manifests_are_valid,
    pods_are_restricted,
    users_are_the_clusters_to_choose,
    tests_run_where_bridges_do,
    configurations_are_valid,
    nothing_but_webhooks_is_routed,
    routes_fit_a_gateway,
    stops_are_waited_for,
    sidecar_is_native,
    sidecars_services_find_their_pod,
    wrong_values_are_refused,
    right_values_are_taken,
    notes_name_mounted_tokens,
    examples_of_the_pages_are_values,
    image_copies_what_is_there,
    compose_starts_what_it_says,
    nats_takes_its_configuration,
    alerts_and_dashboard_are_in_the_chart,
    licences_are_collected,
    workflows_are_valid,
]


def main():
    failed = 0
    for check in CHECKS:
        name = check.__name__.replace("_", " ")
        try:
            print(f"ok    {name}: {check()}", flush=True)
        except Wrong as wrong:
            failed += 1
            print(f"FAIL  {name}: {wrong}", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
