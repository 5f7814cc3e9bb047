"""Where official files are found, and how they are read and checked."""
