"""The state of a running job: its metrics, writers of metrics, and the local page."""
