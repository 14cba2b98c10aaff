"""Schemas of what is not Kubernetes' own, as far as deploy/k8s uses it.

The fields and their types are those of the CustomResourceDefinitions `keda.sh_scaledobjects.yaml` (kedacore/keda 2.16)
and `monitoring.coreos.com_{podmonitors,prometheusrules}.yaml` (prometheus-operator 0.80); unknown fields, which an
API server would drop without a word, are refused.
"""

from __future__ import annotations

from typing import Any

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
LABELS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


METADATA = closed(["name", "namespace"], name=TEXT, namespace=TEXT, labels=LABELS, annotations=LABELS)
POLICY = closed(
    ["type", "value", "periodSeconds"], type={"enum": ["Pods", "Percent"]}, value=COUNT, periodSeconds=COUNT
)
RULES = closed(
    [],
    # The autoscaler that KEDA makes of it is refused above an hour.
    stabilizationWindowSeconds={**COUNT, "maximum": 3600},
    policies=listed(POLICY),
    selectPolicy={"enum": ["Max", "Min", "Disabled"]},
)
TRIGGER = closed(
    ["type", "metadata"],
    type={"const": "prometheus"},
    name=TEXT,
    metricType={"enum": ["AverageValue", "Value"]},
    # Of strings alone, also where a number is meant.
    metadata=closed(
        ["serverAddress", "query", "threshold"],
        serverAddress=TEXT,
        query=TEXT,
        threshold=TEXT,
        ignoreNullValues={"enum": ["true", "false"]},
    ),
)
SCALED_OBJECT = closed(
    ["scaleTargetRef", "triggers"],
    scaleTargetRef=closed(["name"], apiVersion=TEXT, kind=TEXT, name=TEXT),
    pollingInterval=COUNT,
    minReplicaCount=COUNT,
    maxReplicaCount=COUNT,
    advanced=closed(
        [],
        horizontalPodAutoscalerConfig=closed([], behavior=closed([], scaleUp=RULES, scaleDown=RULES)),
    ),
    triggers=listed(TRIGGER),
)
POD_MONITOR = closed(
    ["selector", "podMetricsEndpoints"],
    jobLabel=TEXT,
    selector=closed([], matchLabels=LABELS),
    podMetricsEndpoints=listed(
        closed([], port=TEXT, path=TEXT, interval={"type": "string", "pattern": "^[0-9]+s$"}),
    ),
)

DURATION = {"type": "string", "pattern": "^[0-9]+[smh]$"}
PROMETHEUS_RULE = closed(
    ["groups"],
    groups=listed(
        closed(
            ["name", "rules"],
            name=TEXT,
            rules=listed(
                closed(
                    ["expr"], alert=TEXT, record=TEXT, expr=TEXT, **{"for": DURATION}, labels=LABELS, annotations=LABELS
                )
            ),
        )
    ),
)


def whole(api_version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return closed(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": api_version},
        kind={"const": kind},
        metadata=METADATA,
        spec=spec,
    )


SCHEMAS = {
    "ScaledObject": whole("keda.sh/v1alpha1", "ScaledObject", SCALED_OBJECT),
    "PodMonitor": whole("monitoring.coreos.com/v1", "PodMonitor", POD_MONITOR),
    "PrometheusRule": whole("monitoring.coreos.com/v1", "PrometheusRule", PROMETHEUS_RULE),
}
