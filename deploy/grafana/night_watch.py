"""The dashboard of the night watch: ``python deploy/grafana/night_watch.py > deploy/grafana/dashboards/night-watch.json``.

From top to bottom: is anything wrong; do data come; are they decided in time; do alerts leave. Panels that the alerting rules
name keep their titles.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode, GraphTresholdsStyleMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
RATE = "$__rate_interval"
Builder = stat.Panel | table.Panel | timeseries.Panel


@dataclass(frozen=True)
class Panel:
    kind: type[Builder]
    title: str
    expression: str
    legend: str = "{{instance}}"
    unit: str = "short"
    limits: tuple[float, ...] = ()
    """Where the colour changes."""
    colours: tuple[str, ...] = ("green", "yellow", "red")
    width: int = 8


def _share(metric: str, *by: str) -> str:
    """95 % of a histogram's observations lie below."""
    labels = ", ".join(("le", *by))
    return f"histogram_quantile(0.95, sum by ({labels}) (rate({metric}_bucket[{RATE}])))"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Is anything wrong?": (
        Panel(
            stat.Panel,
            "Daemons that do not answer",
            'count(up{job="quake"} == 0) or sum(absent(up{job="quake"})) or vector(0)',
            "",
            limits=(1,),
            colours=("green", "red"),
            width=4,
        ),
        Panel(
            stat.Panel,
            "Stations sending",
            "count(changes(quake_newest_sample_timestamp_seconds[5m]) > 0) or vector(0)",
            "",
            limits=(1,),
            colours=("red", "green"),
            width=4,
        ),
        Panel(stat.Panel, "Since the last heartbeat", "max(quake:heartbeat_age_seconds)", "", "s", (15, 30), width=4),
        Panel(stat.Panel, "Alerts not yet published", "sum(quake_outbox_depth)", "", limits=(1, 20), width=4),
        Panel(
            table.Panel,
            "Model",
            "count by (instance, name, version, sha256) (quake_model_info)",
            width=8,
        ),
        Panel(
            table.Panel,
            "Rules that fire, or soon will",
            'max by (alertname, severity, alertstate, instance, station) (ALERTS{alertname=~"Quake.+"})',
            width=24,
        ),
    ),
    "Do data come?": (
        Panel(
            timeseries.Panel,
            "Age of the newest sample, twenty oldest stations",
            "topk(20, quake:station_latency_seconds)",
            "{{station}}",
            "s",
            (60, 900),
            width=6,
        ),
        Panel(
            timeseries.Panel,
            "Samples received",
            f"sum by (instance) (rate(quake_samples_total[{RATE}]))",
            unit="cps",
            width=6,
        ),
        Panel(timeseries.Panel, "Servers connected", "quake_connected_servers", width=6),
        Panel(
            timeseries.Panel,
            "Connections lost",
            f"sum by (cause) (increase(quake_reconnects_total[{RATE}]))",
            "{{cause}}",
            width=6,
        ),
    ),
    "Are they decided in time?": (
        Panel(
            timeseries.Panel,
            "Decisions behind real time, median station",
            "quantile by (instance) (0.5, quake:decision_lag_seconds)",
            unit="s",
            limits=(60, 120),
        ),
        Panel(timeseries.Panel, "Windows scored", f"rate(quake_windows_scored_total[{RATE}])", unit="cps"),
        Panel(
            timeseries.Panel,
            "Windows not used",
            f"sum by (reason) (rate(quake_windows_unused_total[{RATE}])) > 0",
            "{{reason}}",
            "cps",
        ),
        Panel(timeseries.Panel, "What waits", "sum by (queue) (quake_queue_depth)", "{{queue}}", width=12),
        Panel(
            timeseries.Panel,
            "Time of a stage, 95 %",
            _share("quake_stage_seconds", "stage"),
            "{{stage}}",
            "s",
            width=12,
        ),
    ),
    "Do alerts leave?": (
        Panel(
            timeseries.Panel,
            "Detections opened",
            f'sum by (instance) (increase(quake_detections_total{{status="open"}}[{RATE}]))',
        ),
        Panel(
            timeseries.Panel,
            "Alerts by kind and status",
            f"sum by (kind, status) (increase(quake_alerts_total[{RATE}]))",
            "{{kind}} {{status}}",
        ),
        Panel(
            timeseries.Panel, "From packet to Redis, 95 %", _share("quake_alert_latency_seconds", "instance"), unit="s"
        ),
        Panel(
            timeseries.Panel,
            "Oldest alert not yet published",
            "quake_outbox_age_seconds",
            unit="s",
            limits=(30, 120),
            width=12,
        ),
        Panel(
            timeseries.Panel,
            "Failed to publish",
            f"sum by (cause) (increase(quake_publish_failures_total[{RATE}]))",
            "{{cause}}",
            width=12,
        ),
    ),
}


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    values = (None, *panel.limits)
    steps = [Threshold(value=value, color=colour) for value, colour in zip(values, panel.colours, strict=True)]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _built(panel: Panel, number: int) -> Builder:
    is_table, is_stat = panel.kind is table.Panel, panel.kind is stat.Panel
    query = prometheus.Dataquery().ref_id("A").datasource(SOURCE).expr(panel.expression).legend_format(panel.legend)
    query = query.instant().format(PromQueryFormat.TABLE) if is_table else query.range()
    made = panel.kind().id(number).title(panel.title).datasource(SOURCE).with_target(query)
    made = made.span(panel.width).height(4 if is_stat or (is_table and panel.width < 24) else 7).unit(panel.unit)
    if panel.limits:
        made = made.thresholds(_thresholds(panel))
    if isinstance(made, table.Panel):
        hidden = {"excludeByName": {"Time": True, "Value": True}}
        made = made.with_transformation(DataTransformerConfig(id_val="organize", options=hidden))
    elif isinstance(made, stat.Panel):
        made = made.color_mode(BigValueColorMode.BACKGROUND).graph_mode(BigValueGraphMode.NONE)
        made = made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    elif panel.limits:
        made = made.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED))
    return made


def night_watch() -> model.Dashboard:
    made = (
        dashboard.Dashboard("quake: night watch")
        .uid("quake-night-watch")
        .tags(["quake"])
        .timezone("utc")
        .time("now-3h", "now")
        .refresh("15s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    number = 0
    for title, panels in ROWS.items():
        number += 1
        made = made.with_row(dashboard.Row(title).id(number))
        for panel in panels:
            number += 1
            made = made.with_panel(_built(panel, number))
    return made.build()


if __name__ == "__main__":
    json.dump(night_watch(), sys.stdout, cls=JSONEncoder, indent=1, sort_keys=True)
    sys.stdout.write("\n")
