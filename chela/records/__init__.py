"""What a run leaves behind. Knows no task, no model and no trainer: it is given plain values."""
