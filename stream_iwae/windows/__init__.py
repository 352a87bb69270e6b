"""EventBatch -> WindowBatch: event-time windows per entity, closed by the watermark."""
