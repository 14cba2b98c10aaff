#!/bin/sh
# Prints Prometheus' rules as PrometheusRules and Grafana's dashboards as a ConfigMap, from the files that compose mounts:
# kustomize reads no files outside of its folder, and a copy would grow old.
set -eu
cd "$(dirname "$0")/.."
for file in prometheus/rules/*.yml; do
  cat <<END
---
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pairforge-$(basename "$file" .yml)
  namespace: monitoring
spec:
END
  sed 's/^/  /' "$file"
done
echo ---
kubectl create configmap pairforge-dashboards --namespace=monitoring --from-file=grafana/dashboards --dry-run=client --output=yaml |
  kubectl label --local --filename=- --output=yaml grafana_dashboard=1
