"""Where searches for a recipe keep their trials: apart from the runs that a table is made of."""

FOLDER = "search"  # below an output_dir; a report of the whole leaves it out
