"""Kafka records -> EventBatch | Rejected: decode, time, fields, counters, presets."""
