"""The Long Range Arena tasks: from a source to batches, knowing nothing of models."""
