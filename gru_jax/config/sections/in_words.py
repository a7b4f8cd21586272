"""Values and texts of other people in our messages: as they would write them, and no longer than anybody reads."""


def short(text: str, most: int = 120) -> str:
    """A text as it is, or, where it is longer, its two ends.

    Example:
        >>> short("model.hidden=8"), short("x" * 1000, 10)
        ('model.hidden=8', 'xxxxx ... (990 characters) ... xxxxx')
    """
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} ... ({len(text) - 2 * half} characters) ... {text[-half:]}"


def show(value: object) -> str:
    """A value as a person would write it in YAML, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 128:
        return "an integer of more than 38 digits"
    text = repr(value)
    if isinstance(value, float) and text[-3:] in ("nan", "inf"):
        text = text.replace("nan", ".nan").replace("inf", ".inf")
    return text if len(text) <= 60 else f"{text[:57]}..."
