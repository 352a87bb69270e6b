"""WindowBatch -> FeatureBatch: raw feature values and what is missing."""
