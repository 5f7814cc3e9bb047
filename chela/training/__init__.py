"""The training engine: from a checked configuration to a tested, recorded run."""
