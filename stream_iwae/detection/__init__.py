"""Scores -> VerdictBatch: calibrated p-values, severities within a budget, explanations."""
