"""Descriptions of clusters, and the HTML report of a build."""
