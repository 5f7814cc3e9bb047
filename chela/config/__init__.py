"""What a run is: its configuration, from the command line to a checked dataclass."""
