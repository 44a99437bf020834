"""Name the columns of a certificate."""

from __future__ import annotations

from collections.abc import Iterable

# column → heading, in the order of certificate.csv; layers and networks add columns such as held_out/relu5
HEADINGS = {
    "error": "error",
    "null_percentile": "null percentile",
    "null_photos": "null photos",
    "jpeg_equivalent": "JPEG quality",
    "shift_equivalent": "shift, px",
    "noise_equivalent": "noise, grey levels",
    "rho": "Spearman ρ",
    "null_rho": "best ρ of the null",
    "r2": "R²",
    "null_r2": "best R² of the null",
    "snr_db": "SNR, dB",
    "null_snr_db": "best SNR of the null, dB",
    "held_out": "error at other layers",
    "other_percentile": "null percentile of other networks",
    "other_class_kept": "class kept by other networks",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "naturalness": "denoiser's residual over the photo's",
    "gradient_distance": "gradients' distance from photos'",
    "photo_gradient_distance": "the photo's own",
}
PERCENT = ("error", "held_out", "other_class_kept", "failure_rate")  # shares that are written in percent
OF_PARTS = ("held_out", "other_percentile", "other_class_kept")  # each a mean over layers or networks


def ordered(names: Iterable[str]) -> list[str]:
    """Return the names of columns in the order of certificate.csv: a layer's or network's after the mean's."""
    known = list(HEADINGS)
    rank = {name: known.index(first) if (first := name.partition("/")[0]) in HEADINGS else len(known) for name in names}
    return sorted(rank, key=lambda name: (rank[name], "/" in name))


def heading(name: str) -> str:
    """Return the heading of a column, such as ``error at relu5`` of ``held_out/relu5``."""
    first, _, part = name.partition("/")
    if not part:
        return HEADINGS.get(name, name)
    return {"held_out": f"error at {part}", "other_percentile": f"null percentile of {part}"}.get(
        first, f"class kept by {part}" if first == "other_class_kept" else f"{first} of {part}"
    )


def worded(name: str, value: float) -> str:
    """Return the value of a column as text for people, with its unit where the heading has none."""
    if name.partition("/")[0] in PERCENT:
        return f"{100 * value:.3g} %"
    if name.endswith("percentile") or "percentile/" in name:
        return f"{value:.3g} %"
    return f"{value:.0f}" if name == "null_photos" else f"{value:.3g}"
