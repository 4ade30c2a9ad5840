"""What the clusters are about: descriptions, and the HTML report."""
