"""Upload, create, poll, download: the decisions, and the one loop that acts on them."""
