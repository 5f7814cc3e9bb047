"""Whatever stands in a file of text, reading it succeeds or says what is wrong with it."""

from __future__ import annotations

import io
from pathlib import Path

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tasks.errors import DataError
from tasks.listops.tsv import read_tsv

LISTOPS = b"Source\tTarget\n( ( ( [MAX 3 ) 5 ) ] )\t5\n( ( ( [SM 1 ) ( ( [MED 2 ) ] ) ) ] )\t3\n"


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """Some stretches of a good file replaced by others, or anything at all."""
    stretch = st.tuples(
        st.integers(0, len(whole)), st.integers(0, 12), st.binary(max_size=12) | st.just(whole)
    )

    def replaced(stretches: list[tuple[int, int, bytes]]) -> bytes:
        content = whole
        for start, length, other in stretches:
            content = content[:start] + other + content[start + length :]
        return content

    return st.lists(stretch, max_size=4).map(replaced) | st.binary()


@settings.get_profile("fuzz")
@given(damaged(LISTOPS))
def test_any_listops_file_is_read_or_refused(content: bytes) -> None:
    try:
        for rows in read_tsv(io.BytesIO(content), Path("basic_val.tsv")):
            assert len(rows.values) == rows.offsets[-1]
        event("read")
    except DataError:
        event("refused")
