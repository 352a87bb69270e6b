"""EventBatch of any partition -> batches keyed by entity -> EventBatch: each entity in one place; see docs/adr/0009."""
