"""The archive of the Long Range Arena (Tay et al. 2021), which several tasks read as it lies."""

from __future__ import annotations

# As its own name is, and as it might be renamed; it is a compressed tar whatever it is called.
ARCHIVES = ("lra_release.gz", "lra_release.tar.gz", "lra_release.tar")
WHAT = (
    "lra_release.gz (7.7 GB), the archive of the Long Range Arena (Tay et al. 2021), from "
    "github.com/google-research/long-range-arena; as it is or unpacked"
)
