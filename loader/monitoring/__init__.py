"""Where a running job stands: its metrics, who shows them, and the local page."""
