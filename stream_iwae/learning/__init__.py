"""TrainingBatch -> artefact: what is learnt from the stream, and what may be promoted."""
