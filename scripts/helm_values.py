#!/usr/bin/env python3
"""Makes what the chart has twice: values.schema.json, docs/helm-values.md, and the chart's copies of alerts and dashboard.

    helm_values.py          writes them
    helm_values.py --check  says which are out of date, and exits 1

The form of `config` and `accounts` comes from docs/fleetbus.schema.json, which `fleetbus check --schema` prints.
"""

import copy
import json
import pathlib
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHART = ROOT / "helm/fleetbus"
SECRET = {
    "type": "object",
    "description": "a key of a Secret of this namespace",
    "additionalProperties": False,
    "required": ["secret"],
    "properties": {
        "secret": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name", "key"],
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"},
                "key": {"type": "string", "pattern": "^[A-Za-z0-9._-]+$"},
            },
        }
    },
}


def schema():
    """The chart's schema, with the configuration's inside."""
    made = yaml.safe_load((ROOT / "helm/values.schema.yaml").read_text())
    config = json.loads((ROOT / "docs/fleetbus.schema.json").read_text())
    for key in ("$schema", "$id", "title"):
        config.pop(key, None)
    made["$defs"].update(config.pop("$defs", {}))
    # A process's own file is no use here: the chart mounts what is referred to.
    made["$defs"]["secret"]["oneOf"].append(SECRET)
    accounts = config["properties"].pop("accounts")
    config["properties"].pop("data_dir")
    for part in ("listen", "admin"):
        config["properties"][part]["properties"].pop("address")
        config["properties"][part].pop("required", None)
    config["properties"]["listen"]["properties"].pop("tls", None)
    if not config["properties"]["listen"]["properties"]:
        config["properties"].pop("listen")
    config.pop("required", None)

    properties = made["properties"]
    instance = properties["instances"]["items"]["properties"]
    made["$defs"]["config"] = config
    made["$defs"]["accounts"] = accounts
    for place, name in (
        (properties, "config"),
        (properties, "accounts"),
        (instance, "config"),
        (instance, "accounts"),
    ):
        place[name] = {"$ref": f"#/$defs/{name}", "description": place[name]["description"]}
    persistence = {"type": "object", "additionalProperties": False}
    own = ("size", "storageClass", "accessMode", "annotations", "existingClaim")
    persistence["properties"] = {key: properties["persistence"]["properties"][key] for key in own}
    instance["persistence"] = {**persistence, "description": instance["persistence"]["description"]}
    return made


def beside(place, made):
    """A `$ref` with a description beside it: allowed, and ignored, by draft 7."""
    place = copy.deepcopy(place)
    if "$ref" in place:
        found = made
        for part in place["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        place = {**found, **{key: value for key, value in place.items() if key != "$ref"}}
    return place


def form(place):
    """What may be written, in a word or two."""
    if "enum" in place:
        return " ".join(f"`{json.dumps(value).strip(chr(34))}`" for value in place["enum"])
    return place.get("type", "")


def rows(made):
    """Each value as (key, form, default, meaning)."""
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def walk(properties, default, prefix):
        for name, place in properties.items():
            if prefix == "" and name == "global":
                continue
            key, place = prefix + name, beside(place, made)
            inner = place.get("properties")
            if prefix == "" and name in ("config", "accounts") or key.startswith("instances[].") and "." in key:
                yield key, form(place), default.get(name) if isinstance(default, dict) else None, place["description"]
            elif place.get("type") == "array" and "properties" in place.get("items", {}) and name == "instances":
                yield key, "array", default.get(name), place["description"]
                yield from walk(place["items"]["properties"], {}, key + "[].")
            elif inner:
                yield key, "", None, place["description"]
                yield from walk(inner, default.get(name, {}), key + ".")
            else:
                if isinstance(default, dict) and not prefix.startswith("instances") and name not in default:
                    raise SystemExit(f"values.yaml has no default for {key}")
                yield key, form(place), default.get(name) if isinstance(default, dict) else None, place["description"]

    known = set(made["properties"])
    for name in defaults:
        if name not in known:
            raise SystemExit(f"values.yaml has {name}, which the schema does not know")
    return list(walk(made["properties"], defaults, ""))


def reference(made):
    """docs/helm-values.md."""
    lines = [
        "# Values of the Helm chart",
        "",
        "<!-- Made by scripts/helm_values.py from helm/values.schema.yaml and helm/fleetbus/values.yaml: `make helm-values`. -->",
        "",
        "How to install it is in [deploy.md](deploy.md). Values of another form, and unknown keys, are refused by `values.schema.json`",
        "before anything is made; the form of `config` and `accounts` is that of [fleetbus.schema.json](fleetbus.schema.json).",
        "",
        "| value | form | default | meaning |",
        "|---|---|---|---|",
    ]
    for key, shape, default, meaning in rows(made):
        shown = "" if default is None else f"`{json.dumps(default)}`"
        lines.append(f"| `{key}` | {shape} | {shown} | {meaning} |")
    return "\n".join(lines) + "\n"


def main():
    made = schema()
    outcome = {
        CHART / "values.schema.json": json.dumps(made, indent=2, ensure_ascii=False) + "\n",
        ROOT / "docs/helm-values.md": reference(made),
    }
    for source, copied in (
        ("deploy/prometheus/alerts.yaml", "files/alerts.yaml"),
        ("deploy/grafana/fleetbus.json", "files/dashboard.json"),
    ):
        if (ROOT / source).exists():
            outcome[CHART / copied] = (ROOT / source).read_text()
    stale = [path for path, text in outcome.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run `make helm-values`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(outcome[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
