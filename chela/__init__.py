"""CHELA and the engine that trains any model on any Long Range Arena task."""
