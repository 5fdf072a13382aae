#!/usr/bin/env python3
"""Writes the Grafana dashboards. Change a panel here, then run this script.

  deploy/grafana/dashboards.py            writes dashboards/*.json
  deploy/grafana/dashboards.py --check    fails if they are not current
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24

# Units of Grafana.
COUNT, SECONDS, SHARE, BYTES, PER_SECOND, ONE = "short", "s", "percentunit", "bytes", "ops", "none"


def row(title):
    return {"title": title, "type": "row", "collapsed": False, "panels": []}


def panel(title, about, unit, *queries, kind="timeseries", width=8, height=7, **extras):
    """A panel. Each query is an expression and the legend of its series. `about` says what to look for."""
    assert about and unit and queries, title
    instant = kind in ("stat", "table")
    targets = [
        {"refId": chr(ord("A") + n), "expr": expression, "legendFormat": legend, "datasource": SOURCE}
        | ({"instant": True} if instant else {})
        | ({"format": "table"} if kind == "table" else {})
        for n, (expression, legend) in enumerate(queries)
    ]
    defaults = {"unit": unit} | extras.pop("defaults", {})
    return {
        "title": title, "description": about, "type": kind, "datasource": SOURCE, "size": (width, height),
        "targets": targets, "fieldConfig": {"defaults": defaults, "overrides": []},
    } | extras


def quantiles(metric, labels, by="", legend="", all=(0.5, 0.95, 0.99)):
    """Quantiles of a histogram over the interval of the panel."""
    group = "le" + (f", {by}" if by else "")
    return [
        (f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket{labels}[$__rate_interval])))",
         f"{legend} p{q * 100:.0f}".strip())
        for q in all
    ]


def increase(metric, by, labels=""):
    return f"sum by ({by}) (increase({metric}{labels}[$__rate_interval]))"


def rate(metric, by, labels=""):
    return f"sum by ({by}) (rate({metric}{labels}[$__rate_interval]))"


def line(value, below="green", above="red"):
    """Draws a line at a threshold."""
    steps = [{"color": below, "value": None}, {"color": above, "value": value}]
    return {"thresholds": {"mode": "absolute", "steps": steps}, "custom": {"thresholdsStyle": {"mode": "line"}}}


LOGARITHMIC = {"custom": {"scaleDistribution": {"type": "log", "log": 10}}}
NAMES = {"options": {"textMode": "name"}}


def dashboard(uid, title, about, *panels, model=None):
    """`model` is the query of the variable `$model`, or None if the dashboard has no such variable."""
    variables = [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}]
    if model:
        variables.append({
            "name": "model", "label": "Model", "type": "query", "datasource": SOURCE, "refresh": 2, "sort": 1,
            "query": {"query": model, "refId": "model"},
        })
    placed, x, y, height = [], 0, 0, 0
    for number, item in enumerate(panels, 1):
        item = dict(item)
        wide, high = item.pop("size", (WIDTH, 1))
        if x + wide > WIDTH:
            x, y, height = 0, y + height, 0
        placed.append({"id": number} | item | {"gridPos": {"x": x, "y": y, "w": wide, "h": high}})
        x, height = x + wide, max(height, high)
    return {
        "uid": uid, "title": title, "description": about, "tags": ["serin"], "schemaVersion": 39, "version": 1,
        "editable": True, "time": {"from": "now-1h", "to": "now"}, "refresh": "10s", "timezone": "browser",
        "links": [{"title": "Serin", "type": "dashboards", "tags": ["serin"], "asDropdown": True, "keepTime": True}],
        "templating": {"list": variables}, "panels": placed,
    }


ROLLBACK_TIME = panel(
    "Time of a rollback, by phase", "The slowest 1 % of all rollbacks since the processes started. `decided`: from the end of the deciding "
    "window to the decision. `applied`: from the record on the log to its use by a router. `drained`: from then until no call is "
    "in flight on the version", SECONDS,
    ("histogram_quantile(0.99, sum by (le, phase) (serin_rollback_seconds_bucket))", "{{phase}} p99"),
    defaults=LOGARITHMIC,
)

FLEET = dashboard(
    "serin-fleet", "Serin: fleet", "All rollouts: what needs a person first, then what runs, then what ended.",
    row("What needs a person"),
    panel("Firing alerts", "Alerts of deploy/prometheus/rules.yml. docs/runbooks/ has a page for each", COUNT,
          ('count by (alertname, severity) (ALERTS{alertname=~"Serin.*",alertstate="firing"})', "{{alertname}}"), kind="table"),
    panel("Rollouts that take no step", "By model and reason. `decision`: only a person can end the hold. `serin get MODEL` shows the cause",
          COUNT, ("max by (model, reason) (serin_rollout_waiting)", "{{model}}: {{reason}}"), kind="table"),
    panel("Newest rollout was rolled back", "Models whose newest rollout was rolled back", COUNT,
          ('max by (model) (serin_rollout_phase{phase="rolled_back"})', "{{model}}"), kind="stat", **NAMES),
    row("Rollouts"),
    panel("Models by phase", "The phase of each model's active rollout, or else of the one that ended last", COUNT,
          ("count by (phase) (max by (model, phase) (serin_rollout_phase))", "{{phase}}")),
    panel("Canary's share of the traffic", "From the newest routing table of each model", SHARE,
          ('max by (model, version) (serin_routing_weight_ratio{arm="canary"})', "{{model}} {{version}}"), defaults={"min": 0, "max": 1}),
    panel("Rollouts that ended, in 24 h", "By how they ended", COUNT,
          ('sum by (kind) (increase(serin_rollout_events_total{kind=~"completed|rolled_back|aborted|superseded"}[1d]))', "{{kind}}"), kind="stat"),
    panel("Verdicts", "Decisions of the analyzer on all rollouts", COUNT, (increase("serin_verdicts_total", "decision"), "{{decision}}")),
    panel("Worst effect per model, as a share of the margin", "The metric in which the canary is worst. Above 0 it is worse than control, "
          "above 1 it is beyond the margin", SHARE,
          ("max by (model) (serin_verdict_effect_margin_ratio)", "{{model}}"), defaults=line(1)),
    ROLLBACK_TIME,
    row("Traffic and processes"),
    panel("Calls by arm", "All models. Control is sampled in the same way as the canary", PER_SECOND,
          ("sum by (arm) (model_arm_outcome:serin_router_requests:rate5m)", "{{arm}}")),
    panel("Calls without a good answer", "The 10 worst models, as a share of their calls in the last 5 minutes", SHARE,
          ('topk(10, 1 - sum by (model) (model_arm_outcome:serin_router_requests:rate5m{outcome="ok"}) '
           "/ sum by (model) (model_arm_outcome:serin_router_requests:rate5m > 0))", "{{model}}"), defaults={"min": 0}),
    panel("Processes", "Roles, versions and rules. All processes should have the same rules, except during an upgrade", COUNT,
          ("count by (role, version, rules) (serin_build_info)", "{{role}} {{version}}"), kind="table"),
    panel("Time until certificates expire", "By port. SerinCertificateExpires fires at 14 days", SECONDS,
          ("min by (setting) (serin_certificate_expiry_timestamp_seconds) - time()", "{{setting}}"), defaults=line(14 * 86400, "red", "green")),
)

def arm(name):
    """The same three panels for control and canary, so that they can be compared line by line."""
    labels = f'{{model="$model",arm="{name}"}}'
    ok = f'{{model="$model",arm="{name}",outcome="ok"}}'
    return [
        panel(f"{name}: calls", "Calls of this arm, by outcome (docs/outcomes.md)", PER_SECOND,
              (rate("serin_router_requests_total", "outcome", labels), "{{outcome}}")),
        panel(f"{name}: calls without a good answer", "As a share of the arm's calls", SHARE,
              (f"1 - sum(rate(serin_router_requests_total{ok}[$__rate_interval])) / sum(rate(serin_router_requests_total{labels}[$__rate_interval]) > 0)",
               name), defaults={"min": 0}),
        panel(f"{name}: latency", "From the last byte of the request to the last byte of the answer", SECONDS,
              *quantiles("serin_router_request_duration_seconds", labels), defaults=LOGARITHMIC),
    ]


MODEL = '{model="$model"}'
ROLLOUT = dashboard(
    "serin-rollout", "Serin: rollout", "One model: its rollout, the evidence, and what both arms answer.",
    row("Rollout"),
    panel("Phase", "Phase of the active rollout, or else of the one that ended last", COUNT,
          (f"max by (phase) (serin_rollout_phase{MODEL})", "{{phase}}"), kind="stat", width=4, height=4, **NAMES),
    panel("Step", "Step of the active rollout, from 0. -1 is before the first step", ONE,
          (f"max(serin_rollout_step{MODEL})", "step"), kind="stat", width=4, height=4),
    panel("Takes no step because", "Empty while the rollout takes steps. docs/held.md has the reasons", COUNT,
          (f"max by (reason) (serin_rollout_waiting{MODEL})", "{{reason}}"), kind="stat", width=4, height=4, **NAMES),
    panel("Share of each version", "From the newest routing table", SHARE,
          (f"max by (arm, version) (serin_routing_weight_ratio{MODEL})", "{{arm}} {{version}}"), width=12, defaults={"min": 0, "max": 1}),
    panel("Effect per metric, as a share of the margin", "Above 0 the canary is worse than control, above 1 it is beyond the margin. All "
          "metrics share one axis, whatever their unit", SHARE,
          (f"max by (metric) (serin_verdict_effect_margin_ratio{MODEL})", "{{metric}}"), width=12, defaults=line(1)),
    panel("Effect per metric", "Canary minus control in the newest verdict, in the unit of the metric", ONE,
          (f"max by (metric) (serin_verdict_effect{MODEL})", "{{metric}}"), width=12),
    panel("Verdicts", "Decisions of the analyzer", COUNT, (increase("serin_verdicts_total", "decision", MODEL), "{{decision}}")),
    panel("Findings per metric", "Results of each metric on all traffic. Segments are not counted", COUNT,
          (increase("serin_findings_total", "metric, verdict", MODEL), "{{metric}}: {{verdict}}")),
    panel("Events", "Audit events. `serin events MODEL` has their texts", COUNT,
          (increase("serin_rollout_events_total", "kind", MODEL), "{{kind}}")),
    row("Control and canary"),
    *arm("control"), *arm("canary"),
    row("Calls that are not compared"),
    panel("Excluded from the comparison", "Calls that were not split at random. `lease_expired` and `switched_off` send all calls to stable", PER_SECOND,
          (rate("serin_router_uncompared_total", "assignment", MODEL), "{{assignment}}")),
    panel("Not split as configured", "Calls that went to stable, because a value that decides could not be read", PER_SECOND,
          (rate("serin_router_undecided_total", "needed, reason", MODEL), "{{needed}}: {{reason}}")),
    panel("Copies for shadows", "Calls that were copied to versions that do not answer callers", PER_SECOND,
          (rate("serin_router_mirrored_total", "version, outcome", MODEL), "{{version}}: {{outcome}}")),
    model="label_values(serin_rollout_events_total, model)",
)

PIPELINE = dashboard(
    "serin-pipeline", "Serin: pipeline", "From the events on the log to the verdicts: delay, losses, and what the stages use.",
    row("Delay"),
    panel("Age of event time", "How far the watermark of each partition is behind the clock. A partition that stops holds up every verdict. "
          "With replayed traffic, this is the age of the recording", SECONDS,
          ("time() - max by (partition) (serin_watermark_timestamp_seconds)", "partition {{partition}}")),
    panel("Lag", "Records between the position of a stage and the end of its inputs", COUNT,
          ("stage:serin_stream_lag_records:sum", "{{stage}}")),
    panel("Records consumed", "If this is far below the rate of new records, the lag grows", PER_SECOND,
          ("stage:serin_stream_records_consumed:rate5m", "{{stage}}")),
    panel("Duration of a commit", "A commit that takes longer than 1 s points to a slow broker or disk", SECONDS,
          *quantiles("serin_stream_commit_duration_seconds", "", "stage", "{{stage}}", (0.5, 0.99)), defaults=LOGARITHMIC),
    panel("Windows", "`closed` and `ended` windows go to the analyzer", COUNT,
          (increase("serin_windows_total", "outcome"), "{{outcome}}"), (increase("serin_analyzer_windows_total", "partition"), "judged, partition {{partition}}")),
    panel("Windows that were refused", "By the analyzer. `other_rules`: aggregator and analyzer have different versions", COUNT,
          (increase("serin_analyzer_windows_refused_total", "reason"), "{{reason}}")),
    row("Losses"),
    panel("Events", "What became of the events that aggregators read", PER_SECOND,
          (rate("serin_events_consumed_total", "outcome"), "{{outcome}}")),
    panel("Lost, late and dropped events", "Lost and dropped answers are not judged. Late ones count in a later window", COUNT,
          (increase("serin_lost_events_total", "cause"), "lost: {{cause}}"),
          ("sum(increase(serin_late_events_total[$__rate_interval]))", "late"),
          ("sum(increase(serin_duplicate_events_total[$__rate_interval]))", "duplicate"),
          ("sum(increase(serin_router_events_dropped_total[$__rate_interval]))", "dropped by routers")),
    panel("Dead letters", "Records that could not be used. docs/dead-letters.md explains each code", COUNT,
          (increase("serin_stream_dead_letters_total", "stage"), "{{stage}}"),
          (increase("serin_stream_dead_letter_codes_total", "code"), "{{code}}")),
    panel("Labels", "What became of feedback. `no_room` and `sampled_out`: the memory for joins is full", PER_SECOND,
          (rate("serin_label_join_total", "outcome"), "{{outcome}}")),
    panel("Values that were not counted as they are", "Segment values beyond the bound, values such as NaN, and labels that contradict earlier ones", COUNT,
          ("sum(increase(serin_segment_overflow_total[$__rate_interval]))", "segment value counted as other"),
          ("sum(increase(serin_unusable_values_total[$__rate_interval]))", "unusable value"),
          ("sum(increase(serin_label_contradictions_total[$__rate_interval]))", "contradicting label")),
    panel("Silent writers, and writers with a wrong clock", "1 while a writer is silent, and the offset of its clock in seconds. Empty if all is well", ONE,
          ("max by (writer) (serin_writer_silent)", "{{writer}} is silent"),
          ("max by (writer) (serin_writer_clock_offset_seconds)", "{{writer}}: clock offset")),
    panel("Relayed records", "Records of other systems that the intake relayed, and those it could not pair", PER_SECOND,
          (rate("serin_intake_relayed_total", "kind"), "{{kind}}"), (rate("serin_intake_unpaired_total", "door, part"), "unpaired: {{door}} {{part}}")),
    row("Tasks and processes"),
    panel("Running tasks", "One per stage and partition. Fewer than partitions means that a partition is not processed", COUNT,
          ("sum by (stage) (max by (stage, partition) (serin_stream_task_state == bool 3))", "{{stage}}")),
    panel("Errors that reopened a task", "A failover of a broker causes one or two", COUNT,
          (increase("serin_stream_reopens_total", "stage"), "{{stage}}")),
    panel("Active rollouts", "Rollouts that analyzers judge", COUNT, ("sum(serin_analyzer_rollouts)", "rollouts")),
    panel("Memory of tasks", "By what uses it. docs/limits.md has the bounds", BYTES,
          ("sum by (stage, map) (serin_stream_memory_bytes)", "{{stage}}: {{map}}")),
    panel("Memory of stores and of the API", "Caches and write buffers of the stores, and the records that the API keeps", BYTES,
          ("sum by (part) (serin_store_memory_bytes)", "store: {{part}}"), ("sum by (map) (serin_api_memory_bytes)", "API: {{map}}")),
    panel("Resident memory", "By process. docs/limits.md has the bounds of its parts", BYTES, ('process_resident_memory_bytes{job="serin"}', "{{instance}}")),
    panel("Processor time", "Processors in use, by process", ONE, ('rate(process_cpu_seconds_total{job="serin"}[$__rate_interval])', "{{instance}}")),
    panel("Open files", "As a share of the limit of the process", SHARE,
          ('process_open_fds{job="serin"} / process_max_fds{job="serin"}', "{{instance}}"), defaults=line(0.8)),
    panel("Time since the start", "A process that restarts repeatedly never grows old", SECONDS,
          ('time() - process_start_time_seconds{job="serin"}', "{{instance}}")),
)

ROUTER = dashboard(
    "serin-router", "Serin: router", "What callers get, how fast, and how routers follow the tables.",
    row("Callers"),
    panel("Calls by outcome", "Of the chosen model. docs/outcomes.md has the outcomes", PER_SECOND,
          (rate("serin_router_requests_total", "outcome", MODEL), "{{outcome}}")),
    panel("Calls by arm and status", "Of the chosen model. `none`: no status was received", PER_SECOND,
          (rate("serin_router_requests_total", "arm, code_class", MODEL), "{{arm}} {{code_class}}")),
    panel("Latency by arm", "Of the chosen model, from the last byte of the request to the last byte of the answer", SECONDS,
          *quantiles("serin_router_request_duration_seconds", MODEL, "arm", "{{arm}}", (0.5, 0.99)), defaults=LOGARITHMIC),
    panel("Causes of failures", "Of the chosen model, by arm and cause", PER_SECOND,
          (rate("serin_router_failures_total", "arm, cause", MODEL), "{{arm}}: {{cause}}")),
    panel("Refused requests", "Requests of all models that routers refused before a version was chosen", PER_SECOND,
          (rate("serin_router_refused_total", "reason"), "{{reason}}")),
    panel("Calls in flight", "By router. The limit is router.limits.in_flight, by default 4096", COUNT,
          ("serin_router_in_flight", "{{instance}}")),
    row("Tables and rollbacks"),
    panel("Time from the log to use", "Of all routing tables. The target is 10 ms", SECONDS,
          *quantiles("serin_router_apply_seconds", "", all=(0.5, 0.99)), defaults=line(0.01)),
    panel("Routing records", "`unusable` and `garbage` need a person", COUNT, (increase("serin_router_tables_total", "outcome"), "{{outcome}}")),
    panel("Tables written", "By the controller, for the chosen model. Lease renewals are included", COUNT,
          (increase("serin_routing_tables_total", "model", MODEL), "{{model}}")),
    ROLLBACK_TIME,
    panel("Calls that were cut", "Calls in flight on a version that was rolled back, after its `drain`", COUNT,
          (increase("serin_router_cut_total", "model, arm"), "{{model}} {{arm}}")),
    panel("Versions that are not called", "1 while a router does not call a version on trial, because its servers fail", ONE,
          ("max by (model, version) (serin_router_shed)", "{{model}} {{version}}")),
    row("Reporting"),
    panel("Dropped events", "The queue to the log was full. These answers are not judged", COUNT,
          (increase("serin_router_events_dropped_total", "model, arm"), "{{model}} {{arm}}")),
    panel("Memory filled by callers", "docs/limits.md has the bounds", BYTES, ("sum by (map) (serin_router_memory_bytes)", "{{map}}")),
    panel("Feedback and events over HTTP", "Entries by door and outcome", PER_SECOND,
          (rate("serin_router_intake_total", "door, outcome"), "{{door}}: {{outcome}}")),
    panel("Examples", "Pairs of answers that were selected, and those that were not kept", COUNT,
          (increase("serin_router_examples_total", "model, reason"), "{{model}}: {{reason}}")),
    panel("Clock offset", "Of the router's machine from the log's clock, while it exceeds the tolerance", SECONDS,
          ("serin_router_clock_offset_seconds", "{{instance}}")),
    panel("Certificates and names", "Changed certificates, and names that were lost to another process", COUNT,
          (increase("serin_router_certificates_total", "outcome"), "certificate {{outcome}}"),
          (increase("serin_router_name_lost_total", "instance"), "{{instance}} lost its name")),
    row("Language models"),
    panel("Time to the first chunk", "Of streamed answers of the chosen model", SECONDS,
          *quantiles("serin_router_time_to_first_chunk_seconds", MODEL, "arm", "{{arm}}", (0.5, 0.99)), defaults=LOGARITHMIC),
    panel("Time per output chunk", "Mean time between two chunks of a stream", SECONDS,
          *quantiles("serin_router_time_per_output_chunk_seconds", MODEL, "arm", "{{arm}}", (0.5, 0.99)), defaults=LOGARITHMIC),
    panel("Output tokens", "Per answer of the chosen model", COUNT,
          *quantiles("serin_router_output_tokens", MODEL, "arm", "{{arm}}", (0.5, 0.99))),
    model="label_values(serin_router_requests_total, model)",
)


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    texts = {
        FOLDER / f"{board['uid'].removeprefix('serin-')}.json": json.dumps(board, indent=1, ensure_ascii=False) + "\n"
        for board in (FLEET, ROLLOUT, PIPELINE, ROUTER)
    }
    if sys.argv[1:]:
        stale = [path for path in sorted(texts.keys() | set(FOLDER.glob("*.json")))
                 if not path.exists() or path.read_text() != texts.get(path)]
        if stale:
            sys.exit(f"error: run deploy/grafana/dashboards.py: not current: {', '.join(path.name for path in stale)}")
        return
    for path, text in texts.items():
        path.write_text(text)


main()
