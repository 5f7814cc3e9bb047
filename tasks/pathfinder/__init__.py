"""Pathfinder and Path-X: are two markers on one contour? Official release or a generator."""
