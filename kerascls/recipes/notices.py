"""Notices that stay with a run: embedded data in place of missing data, and backbones of random weights."""


def fallback_notice(wanted: str | None, used: str) -> str | None:
    """The announcement of a fallback, in capitals; None where there was none."""
    if wanted is None:
        return None
    return (
        f"{wanted.upper()} IS NOT THE DATA HERE: THE EMBEDDED DATA SET {used.upper()} STANDS IN FOR IT. "
        f"ITS NUMBERS SAY NOTHING ABOUT {wanted.upper()}."
    )


def random_backbone_notice() -> str:
    """The announcement of a transfer model without pretrained weights, in capitals."""
    return (
        'THE BACKBONE HAS RANDOM WEIGHTS (model.weights = "none"): '
        "ITS NUMBERS SAY NOTHING ABOUT WHAT PRETRAINED WEIGHTS WOULD REACH."
    )


def all_notices(fallback_for: str | None, data: str, random_backbone: bool) -> str | None:
    """What a model's every answer must be preceded by, or None."""
    notices = [fallback_notice(fallback_for, data), random_backbone_notice() if random_backbone else None]
    return "\n".join(notice for notice in notices if notice) or None
