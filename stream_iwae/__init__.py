"""Streaming anomaly detection for network telemetry with importance-weighted autoencoders."""

__version__ = "0.1.0"
