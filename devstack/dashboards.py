"""Grafana's dashboards: what each shows. Their JSON is made in devstack/grafana.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devstack.alerting import CLAIM, PLACE


@dataclass(frozen=True)
class Panel:
    """A graph of expressions, each with the legend of its lines."""

    title: str
    lines: Sequence[tuple[str, str]]
    unit: str = "short"
    is_figure: bool = False
    meaning: str = ""


def _quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{where}[5m])))"


def _rate(metric: str, by: str, where: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{where}[5m]))"


def _once(gauge: str, *by: str) -> str:
    """Count once what every replica reads from the same database."""
    return f"max by ({', '.join((PLACE, *by))}) ({gauge})"


_LEG = "dialler_cdc_ingest_change_latency_seconds"
_READS = "dialler_user_context_cache_reads_total"
_PEOPLE = f"sum by (queue, state) ({_once('dialler_queue_people', 'queue', 'state', 'why')})"

DASHBOARDS: dict[str, tuple[str, Sequence[Panel]]] = {
    "overview": (
        "Dialler: overview",
        (
            Panel(
                "Changes late, of 1 % allowed",
                [("max(dialler:change_visible:bad_ratio_1h)", "1 h")],
                "percentunit",
                is_figure=True,
            ),
            Panel(
                "Claims slow, of 0.1 % allowed",
                [("max(dialler:claim_answered:bad_ratio_1h)", "1 h")],
                "percentunit",
                is_figure=True,
            ),
            Panel(
                "Wrong calls",
                # Not the counters' sum: each roll-out begins at nought.
                [("sum(increase(dialler_queue_wrong_calls_total[30d]))", "30 d")],
                is_figure=True,
            ),
            Panel(
                "Wrong calls prevented",
                [("sum(increase(dialler_queue_wrong_calls_prevented_total[1d]))", "1 d")],
                is_figure=True,
            ),
            Panel(
                "Drifted people",
                [("sum(increase(dialler_reconciler_drift_total[1d]))", "1 d")],
                is_figure=True,
            ),
            Panel(
                "Dead letters",
                [("max(dialler_cdc_ingest_dead_letter_messages)", "now")],
                is_figure=True,
            ),
            Panel(
                "Commit to desk",
                [
                    (_quantile(share, "dialler_gateway_change_visible_seconds"), name)
                    for share, name in ((0.5, "p50"), (0.99, "p99"))
                ],
                "s",
            ),
            Panel(
                "Claims by result",
                [(_rate("dialler_queue_claims_total", "result"), "{{result}}")],
                "ops",
            ),
            Panel(
                "People by state",
                [(_PEOPLE, "{{queue}} {{state}}")],
            ),
            Panel(
                "Requests at the gateway",
                [(_rate("dialler_http_server_seconds_count", "status"), "{{status}}")],
                "reqps",
            ),
            Panel(
                "Pods by release",
                [("count by (job, version) (dialler_build_info)", "{{job}} {{version}}")],
            ),
        ),
    ),
    "pipeline": (
        "Dialler: change pipeline",
        (
            Panel(
                "Latency by leg, p99",
                [
                    (_quantile(0.99, _LEG, "leg"), "{{leg}}"),
                    (_quantile(0.99, "dialler_gateway_event_seconds"), "event"),
                ],
                "s",
                meaning="capture: from the commit to the relay; transport: in SQS; refresh; apply; "
                "event: from the queue to the desks",
            ),
            Panel(
                "Latency by leg, median",
                [
                    (_quantile(0.5, _LEG, "leg"), "{{leg}}"),
                    (_quantile(0.5, "dialler_gateway_event_seconds"), "event"),
                ],
                "s",
            ),
            Panel(
                "Relay: lag and active copies",
                [
                    ("max(dialler_relay_commit_lag_seconds)", "lag, s"),
                    ("sum(dialler_relay_active)", "active"),
                ],
            ),
            Panel(
                "Relay: records and messages",
                [
                    ("sum(rate(dialler_relay_records_total[5m]))", "records"),
                    ("sum(rate(dialler_relay_messages_total[5m]))", "messages"),
                ],
                "ops",
            ),
            Panel(
                "Relay: gaps, breaks, failed sends",
                [
                    (_rate("dialler_relay_gaps_total", "reason"), "gap {{reason}}"),
                    (_rate("dialler_relay_stream_ends_total", "cause"), "break {{cause}}"),
                    (_rate("dialler_relay_send_failures_total", "code"), "send {{code}}"),
                ],
                "ops",
            ),
            Panel(
                "Backlog",
                [
                    ("max(dialler_cdc_ingest_backlog_messages)", "in SQS"),
                    ("sum(dialler_cdc_ingest_messages_in_flight)", "held"),
                    ("sum by (lane) (dialler_cdc_ingest_waiting)", "waiting, {{lane}}"),
                ],
            ),
            Panel(
                "Age of the backlog",
                [
                    (
                        "time() - min(dialler_cdc_ingest_applied_through_timestamp_seconds > 0)",
                        "applied through",
                    ),
                    (
                        "time() - max(dialler_cdc_ingest_capture_alive_timestamp_seconds > 0)",
                        "capture last heard of",
                    ),
                ],
                "s",
            ),
            Panel(
                "Messages by result",
                [(_rate("dialler_cdc_ingest_messages_total", "result"), "{{result}}")],
                "ops",
            ),
            Panel(
                "Coalescing: changes per person refreshed",
                [
                    (
                        'sum(rate(dialler_cdc_ingest_records_total{kind="row"}[5m]))'
                        " / sum(rate(dialler_cdc_ingest_users_refreshed_total[5m]))",
                        "changes",
                    ),
                    (
                        "sum(rate(dialler_cdc_ingest_batch_keys_sum[5m]))"
                        " / sum(rate(dialler_cdc_ingest_batch_keys_count[5m]))",
                        "people per call",
                    ),
                ],
            ),
            Panel(
                "Records by kind",
                [(_rate("dialler_cdc_ingest_records_total", "kind"), "{{kind}}")],
                "ops",
            ),
            Panel(
                "Times ahead of their receipt",
                [("max(dialler_cdc_ingest_capture_ahead_seconds)", "worst of ten minutes")],
                "s",
            ),
            Panel(
                "Readings against their messages",
                [(_rate("dialler_cdc_ingest_readings_total", "verdict"), "{{verdict}}")],
                "ops",
            ),
            Panel(
                "Dead letters",
                [
                    ("max(dialler_cdc_ingest_dead_letter_messages)", "waiting"),
                    ("max(dialler_cdc_ingest_dead_letter_alarm)", "alarm"),
                ],
            ),
            Panel(
                "Drift and batch freshness",
                [
                    (
                        "sum by (kind) (increase(dialler_reconciler_drift_total[1h]))",
                        "drift, {{kind}}",
                    ),
                    ("max(dialler_reconciler_batch_freshness)", "batch freshness"),
                    ("sum(dialler_reconciler_leading)", "leaders"),
                ],
            ),
            Panel(
                "Cache",
                [
                    (_rate(_READS, "result"), "{{result}}"),
                    ("sum(rate(dialler_user_context_fills_fenced_total[5m]))", "fenced fills"),
                ],
                "ops",
            ),
            Panel(
                "Cache hits",
                [(f'sum(rate({_READS}{{result="hit"}}[5m])) / sum(rate({_READS}[5m]))', "share")],
                "percentunit",
            ),
            Panel(
                "Redis unusable",
                [
                    ("1 - min(dialler_user_context_cache_trusted)", "cache"),
                    ("max(dialler_gateway_event_stream_lost)", "events"),
                ],
                "short",
            ),
            Panel(
                "Refresh in user_context",
                [
                    (_quantile(0.99, "dialler_user_context_refresh_seconds"), "p99"),
                    (_quantile(0.5, "dialler_user_context_refresh_seconds"), "p50"),
                ],
                "s",
            ),
        ),
    ),
    "queue": (
        "Dialler: queue",
        (
            Panel(
                "Claims by result",
                [(_rate("dialler_queue_claims_total", "result"), "{{result}}")],
                "ops",
            ),
            Panel(
                "Claim time",
                [
                    (
                        _quantile(
                            share, "dialler_grpc_server_seconds", where=f'{{method="{CLAIM}"}}'
                        ),
                        name,
                    )
                    for share, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))
                ],
                "s",
            ),
            Panel(
                "Claims served together",
                [
                    (_quantile(0.5, "dialler_queue_claim_batch_size"), "p50"),
                    (_quantile(0.99, "dialler_queue_claim_batch_size"), "p99"),
                ],
            ),
            Panel(
                "Wrong calls prevented, users quarantined",
                [
                    ("sum(rate(dialler_queue_wrong_calls_prevented_total[5m]))", "prevented"),
                    ("sum(rate(dialler_queue_set_aside_total[5m]))", "quarantined"),
                    ("sum(rate(dialler_queue_wrong_calls_total[5m]))", "wrong"),
                ],
                "ops",
            ),
            Panel("People", [(_PEOPLE, "{{queue}} {{state}}")]),
            Panel(
                "Assignments by how they ended",
                [(_rate("dialler_queue_assignments_ended_total", "ending"), "{{ending}}")],
                "ops",
                meaning="expired: leases that ran out",
            ),
            Panel(
                "Outcomes",
                [(_rate("dialler_queue_outcomes_total", "outcome"), "{{outcome}}")],
                "ops",
            ),
            Panel(
                "Conversions",
                [(_rate("dialler_queue_conversions_total", "conversion"), "{{conversion}}")],
                "ops",
            ),
            Panel("Facts", [(_rate("dialler_queue_facts_total", "result"), "{{result}}")], "ops"),
            Panel(
                "Callbacks", [(_rate("dialler_queue_callbacks_total", "state"), "{{state}}")], "ops"
            ),
            Panel(
                "Callbacks overdue",
                [(f"sum({_once('dialler_queue_callbacks_overdue')})", "over half an hour")],
            ),
            Panel("Outboxes", [("max by (outbox) (dialler_queue_outbox_length)", "{{outbox}}")]),
            Panel(
                "Oldest snapshot in PostgreSQL",
                [("max(dialler_queue_oldest_snapshot_seconds)", "age")],
                "s",
            ),
        ),
    ),
    "service": (
        "Dialler: service",
        (
            Panel(
                "Calls by method",
                [(_rate("dialler_grpc_server_seconds_count", "method"), "{{method}}")],
                "reqps",
            ),
            Panel(
                "Calls that did not answer OK",
                [
                    (
                        _rate("dialler_grpc_server_seconds_count", "method, code", '{code!="OK"}'),
                        "{{method}} {{code}}",
                    )
                ],
                "reqps",
            ),
            Panel(
                "Time by method, p99",
                [(_quantile(0.99, "dialler_grpc_server_seconds", "method"), "{{method}}")],
                "s",
            ),
            Panel(
                "Calls made, p99",
                [(_quantile(0.99, "dialler_grpc_client_seconds", "method"), "{{method}}")],
                "s",
            ),
            Panel(
                "Retries",
                [(_rate("dialler_grpc_client_retries_total", "method"), "{{method}}")],
                "ops",
            ),
            Panel(
                "In progress",
                [
                    ("sum by (job) (dialler_grpc_server_in_progress)", "{{job}} calls"),
                    ("sum by (job) (dialler_http_server_in_progress)", "{{job}} requests"),
                ],
            ),
            Panel(
                "Database connections in use",
                [
                    (
                        "dialler_database_pool_in_use / dialler_database_pool_size",
                        "{{job}} {{pool}}",
                    ),
                    (
                        "sum by (job) (rate(dialler_database_pool_timeouts_total[5m]))",
                        "{{job}} timeouts",
                    ),
                ],
            ),
            Panel(
                "Failures of databases",
                [
                    (
                        "sum by (job, reason) (rate(dialler_database_failures_total[5m]))",
                        "{{job}} {{reason}}",
                    ),
                ],
            ),
            Panel(
                "Periodic jobs",
                [
                    (_quantile(0.99, "dialler_loop_run_seconds", "loop"), "{{loop}}"),
                    (
                        _rate("dialler_loop_run_seconds_count", "loop", '{outcome="error"}'),
                        "{{loop}} errors",
                    ),
                ],
            ),
            Panel(
                "HTTP by route, p99",
                [(_quantile(0.99, "dialler_http_server_seconds", "route"), "{{route}}")],
                "s",
            ),
            Panel(
                "HTTP failures",
                [
                    (
                        _rate(
                            "dialler_http_server_seconds_count", "route, status", '{status=~"5.."}'
                        ),
                        "{{route}} {{status}}",
                    )
                ],
                "reqps",
            ),
            Panel(
                "Event streams",
                [
                    ("sum(dialler_gateway_event_clients)", "open"),
                    (
                        _rate("dialler_gateway_event_clients_ended_total", "reason"),
                        "ended, {{reason}}",
                    ),
                    ("sum(rate(dialler_gateway_event_resets_total[5m]))", "resets"),
                ],
            ),
            Panel(
                "CPU",
                [("rate(process_cpu_seconds_total[5m])", "{{job}} {{instance}}")],
                "percentunit",
            ),
        ),
    ),
}
