"""Real photographs; the benchmarks use the same."""

from __future__ import annotations

from bench.photographs import PHONE_SIZES, encoded, loss_db, phone_photo, photographs, psnr_db

__all__ = ["PHONE_SIZES", "encoded", "loss_db", "phone_photo", "photographs", "psnr_db"]
