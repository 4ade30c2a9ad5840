"""Searches over trained proxies or over tables of finished runs, their costs and reports."""
