"""Offline: simulated networks, data sets, a local Kafka, replays and the demo."""
