"""What may be written: the event types, their members, and the closed vocabularies."""
