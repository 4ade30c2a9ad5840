"""Searches over trained proxies, and over tables of finished runs."""
