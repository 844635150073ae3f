#!/usr/bin/env bash
# The tools of `make deploy-check`: helm, actionlint, the schemas of Kubernetes, and a strict reader of compose files and of the resources
# that operators add to Kubernetes. Built once into the cache folder.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

helm_version=v3.22.0
actionlint_version=v1.7.12
kubernetes_validate=1.37.0

# go_tool NAME VERSION MODULE : builds it once; $cache/bin/deploy-NAME is the version that is asked for.
go_tool() {
  local name="$1" version="$2" module="$3"
  if [ ! -x "$cache/bin/$name-$version" ]; then
    need_go
    step "building $name $version (some minutes)" env GOBIN="$cache/gobin" go install "$module@$version"
    cp "$cache/gobin/$name" "$cache/bin/$name-$version"
  fi
  ln -sf "$name-$version" "$cache/bin/deploy-$name"
}

go_tool helm "$helm_version" helm.sh/helm/v3/cmd/helm
go_tool actionlint "$actionlint_version" github.com/rhysd/actionlint/cmd/actionlint

if [ "$(cat "$cache/deploy-python/version" 2>/dev/null)" != "$kubernetes_validate" ]; then
  command -v python3 >/dev/null || apt python3 python3-venv
  python3 -m venv --clear "$cache/deploy-python" 2>/dev/null || { apt python3-venv && python3 -m venv --clear "$cache/deploy-python"; }
  step "installing kubernetes-validate $kubernetes_validate" \
    "$cache/deploy-python/bin/pip" install --quiet --disable-pip-version-check "kubernetes-validate==$kubernetes_validate" pyyaml
  echo "$kubernetes_validate" > "$cache/deploy-python/version"
fi

strict=$(cat scripts/strict/*.go scripts/strict/go.* | sha256sum | cut -c1-16)
if [ ! -x "$cache/bin/strict-$strict" ]; then
  need_go
  build_strict() { (cd scripts/strict && go build -o "$cache/bin/strict-$strict" .); }
  step "building the strict reader (a minute)" build_strict
fi
ln -sf "strict-$strict" "$cache/bin/deploy-strict"
