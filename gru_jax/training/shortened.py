"""Texts of other people in our messages: an argument or a name may be longer than anybody reads."""


def short(text: str, most: int = 120) -> str:
    """A text as it is, or, where it is longer, its two ends.

    Example:
        >>> short("model.hidden=8"), short("x" * 1000, 10)
        ('model.hidden=8', 'xxxxx ... (990 characters) ... xxxxx')
    """
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} ... ({len(text) - 2 * half} characters) ... {text[-half:]}"
