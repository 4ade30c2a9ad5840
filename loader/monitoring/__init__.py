"""Monitoring: the metrics of a running job, writers of metrics, and the local page."""
