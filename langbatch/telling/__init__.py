"""Who is told of events: a listener, a file, a webhook, OpenTelemetry."""
