"""Language modelling: a text as one long sequence, of which the next token is asked everywhere."""
