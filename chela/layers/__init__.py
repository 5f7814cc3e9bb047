"""What every part of a model is built from: matrices, dropout, norms."""
