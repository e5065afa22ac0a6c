"""What is sent: the private snapshot, cut into shards, and an attempt's payload."""
