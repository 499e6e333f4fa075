"""The objectives, the alerts and what becomes of them in Prometheus's rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from servicekit import promises

RUNBOOKS = "docs/runbooks"

FAULTS = "|".join(sorted(promises.FAULTS))
CLAIM = "/dialler.queue.v1.QueueService/ClaimNext"
# Whoever is unready says so with 503, every few seconds.
NO_PROBE = 'route!~"/healthz|/readyz"'
LAST_FULL = 'dialler_reconciler_last_success_timestamp_seconds{kind="full"}'
# A series that a service has from its start to its end. The relay has none here: with AWS DMS
# there is no relay, and where there is one its silence is DiallerCaptureSilent.
ALWAYS_THERE = {
    "user_context": "dialler_user_context_fills_fenced_total",
    "queue": "dialler_queue_wrong_calls_total",
    "cdc_ingest": "dialler_cdc_ingest_backlog_messages",
    "reconciler": "dialler_reconciler_leading",
    "gateway": "dialler_http_server_in_progress",
}


@dataclass(frozen=True)
class Objective:
    """A promise: a share of events that are good; `bad_ratio` has `{window}` for the range."""

    name: str
    alert: str
    target: float
    bad_ratio: str
    summary: str


@dataclass(frozen=True)
class Alert:
    """A condition that somebody must do something about."""

    name: str
    expression: str
    minutes: int
    severity: str
    summary: str


OBJECTIVES = (
    Objective(
        "change_visible",
        "DiallerChangesLate",
        0.99,
        '1 - sum(rate(dialler_gateway_change_visible_seconds_bucket{le="3.0"}[{window}]))'
        " / sum(rate(dialler_gateway_change_visible_seconds_count[{window}]))",
        "more than 1 % of changes take over 3 s from MySQL to the desks",
    ),
    Objective(
        "claim_answered",
        "DiallerClaimsSlow",
        0.999,
        "1 - sum(rate(dialler_grpc_server_seconds_bucket{"
        f'method="{CLAIM}",code!~"{FAULTS}",le="0.5"}}[{{window}}]))'
        f' / sum(rate(dialler_grpc_server_seconds_count{{method="{CLAIM}"}}[{{window}}]))',
        "more than 0.1 % of claims fail or take over 500 ms",
    ),
)

# Short window, long window, factor, how long it must last, severity.
BURNS = (
    ("5m", "1h", 14.4, "2m", "page"),
    ("30m", "6h", 6.0, "5m", "page"),
    ("2h", "1d", 3.0, "15m", "ticket"),
    ("6h", "3d", 1.0, "30m", "ticket"),
)

ALERTS = (
    # The third objective: its budget is nought, so there is no rate to burn it at. A counter that
    # appears at 1 has no increase for Prometheus; hence the sum over restarts as well.
    Alert(
        "DiallerWrongCall",
        "sum(increase(dialler_queue_wrong_calls_total[15m])) > 0"
        " or sum(dialler_queue_wrong_calls_total unless dialler_queue_wrong_calls_total offset 15m)"
        " > 0",
        0,
        "page",
        "somebody was handed out whom the live check had not found fit",
    ),
    Alert(
        "DiallerDeadLetters",
        "max(dialler_cdc_ingest_dead_letter_messages) > 0",
        1,
        "ticket",
        "changes that could not be taken in wait in the dead-letter queue",
    ),
    Alert(
        "DiallerDeadLetterAlarm",
        "max(dialler_cdc_ingest_dead_letter_alarm) > 0",
        0,
        "page",
        "too many dead letters within a minute: nothing is received until an operator says so",
    ),
    Alert(
        "DiallerBacklogOld",
        "time() - min(dialler_cdc_ingest_applied_through_timestamp_seconds > 0) > 60"
        " and max(dialler_cdc_ingest_backlog_messages) > 0"
        # Who starts again and again has never applied anything: only the backlog tells.
        " or max(dialler_cdc_ingest_backlog_messages) > 0 unless on ()"
        ' sum(increase(dialler_cdc_ingest_messages_total{result=~"done|dead"}[5m])) > 0',
        3,
        "page",
        "changes captured over a minute ago are not applied yet",
    ),
    Alert(
        "DiallerCaptureSilent",
        # Where heartbeats come: without them (AWS DMS) a quiet night would be silence. Over two
        # days, because a process that starts during the silence knows nothing from before it.
        "time() - max(max_over_time(dialler_cdc_ingest_capture_alive_timestamp_seconds[2d]) > 0)"
        " > 120"
        ' and on () sum(increase(dialler_cdc_ingest_records_total{kind="heartbeat"}[2d])) > 0',
        2,
        "page",
        "neither a change nor a heartbeat has come from MySQL for two minutes",
    ),
    Alert(
        "DiallerRelayLagging",
        "max(dialler_relay_commit_lag_seconds and dialler_relay_active == 1) > 10",
        3,
        "ticket",
        "the relay publishes changes over 10 s after their commit",
    ),
    Alert(
        "DiallerNoRelayLeader",
        "sum(dialler_relay_active) < 1",
        2,
        "page",
        "no copy of the relay reads the binlog",
    ),
    Alert(
        "DiallerNoReconcilerLeader",
        "sum(dialler_reconciler_leading) < 1",
        5,
        "ticket",
        "no copy of the reconciler works",
    ),
    Alert(
        "DiallerDrift",
        "sum(increase(dialler_reconciler_drift_total[1h])) > 0",
        0,
        "ticket",
        "people had drifted: a change was lost on its way; they have been put right",
    ),
    Alert(
        "DiallerBatchFreshness",
        "max(dialler_reconciler_batch_freshness) > 0",
        5,
        "ticket",
        "runs of the reconciler stand in for change capture",
    ),
    Alert(
        "DiallerReconcileOverdue",
        # A process that has had no success has no such series: what others had seen counts, and
        # after a bad roll-out that there has been none at all.
        f"time() - max(max_over_time({LAST_FULL}[12h])) > 43200"
        " or sum(dialler_reconciler_leading offset 12h) > 0"
        f" unless on () max_over_time({LAST_FULL}[12h])",
        10,
        "ticket",
        "no full comparison has succeeded for twelve hours",
    ),
    Alert(
        "DiallerPoolExhausted",
        "sum by (job) (increase(dialler_database_pool_timeouts_total[5m])) > 0"
        " or max by (job, pool) (dialler_database_pool_in_use / dialler_database_pool_size) >= 1",
        3,
        "ticket",
        "a service has had no free database connection for minutes",
    ),
    Alert(
        "DiallerOldSnapshot",
        "max(dialler_queue_oldest_snapshot_seconds) > 300",
        1,
        "ticket",
        "a transaction keeps PostgreSQL from cleaning up; the queue's tables grow and slow down",
    ),
    Alert(
        "DiallerServiceAbsent",
        " or ".join(
            f'label_replace(absent({series}), "service", "{service}", "", "")'
            for service, series in ALWAYS_THERE.items()
        ),
        5,
        "page",
        "no copy of a service tells anything of itself",
    ),
    Alert(
        "DiallerGatewayFailing",
        f'sum(rate(dialler_http_server_seconds_count{{{NO_PROBE},status=~"5.."}}[5m]))'
        f" / sum(rate(dialler_http_server_seconds_count{{{NO_PROBE}}}[5m])) > 0.05",
        5,
        "page",
        "over 5 % of the desks' requests fail",
    ),
    Alert(
        "DiallerServiceFailing",
        f'sum by (method) (rate(dialler_grpc_server_seconds_count{{code=~"{FAULTS}"}}[5m]))'
        " / sum by (method) (rate(dialler_grpc_server_seconds_count[5m])) > 0.05",
        5,
        "page",
        "over 5 % of a method's calls fail",
    ),
    Alert(
        "DiallerOutboxHeldUp",
        "max by (outbox) (dialler_queue_outbox_length) > 1000",
        3,
        "ticket",
        "events or notices of the queue are not delivered",
    ),
)


def alert_names() -> list[str]:
    """Return every alert's name, once."""
    return [each.alert for each in OBJECTIVES] + [each.name for each in ALERTS]


def rules() -> dict[str, Any]:
    """Return the rules file."""
    windows = dict.fromkeys(w for short, long, *_ in BURNS for w in (short, long))
    records = [
        {"record": _recorded(it, window), "expr": it.bad_ratio.replace("{window}", window)}
        for it in OBJECTIVES
        for window in windows
    ]
    burning = [_burn_alert(it, *burn) for it in OBJECTIVES for burn in BURNS]
    return {
        "groups": [
            {"name": "dialler-objectives", "interval": "30s", "rules": records},
            {"name": "dialler-burn", "rules": burning},
            {"name": "dialler-operations", "rules": [_alert(each) for each in ALERTS]},
        ]
    }


def _recorded(objective: Objective, window: str) -> str:
    return f"dialler:{objective.name}:bad_ratio_{window}"


def _burn_alert(
    objective: Objective, short: str, long: str, factor: float, lasts: str, severity: str
) -> dict[str, Any]:
    limit = round(factor * (1 - objective.target), 6)
    expression = (
        f"{_recorded(objective, short)} > {limit} and {_recorded(objective, long)} > {limit}"
    )
    return {
        "alert": objective.alert,
        "expr": expression,
        "for": lasts,
        "labels": {"severity": severity, "window": long},
        "annotations": _annotations(objective.alert, objective.summary),
    }


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": f"{alert.minutes}m",
        "labels": {"severity": alert.severity},
        "annotations": _annotations(alert.name, alert.summary),
    }


def _annotations(name: str, summary: str) -> dict[str, str]:
    return {"summary": summary, "runbook": f"{RUNBOOKS}/{name}.md"}
