"""What agents, supervisors and dashboards read of the queue."""
