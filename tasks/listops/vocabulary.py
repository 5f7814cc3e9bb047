"""The 18 symbols of ListOps and their numbers, which never change."""

from __future__ import annotations

PAD, UNK, EOS = 0, 1, 2
DIGIT = 3  # the digit d has the number DIGIT + d
OPERATOR = 13  # followed by the other operators, in this order:
OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
MIN, MAX, MED, SM = range(4)  # an operator's place in OPERATORS
CLOSE = 17

SYMBOLS = ("<pad>", "<unk>", "<eos>", *"0123456789", *OPERATORS, "]")
VOCABULARY_SIZE = len(SYMBOLS)
