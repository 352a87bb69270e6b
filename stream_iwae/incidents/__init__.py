"""VerdictBatch -> alerts: incidents open, update and close."""
