"""Measuring: kernels, training steps, whole models."""
