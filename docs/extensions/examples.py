"""Makes the site show the `Example:` of a docstring as code.

The parser of Google-style docstrings knows the section `Examples:` only, and would show `>>>` under
`Example:` as three nested quotations.
"""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Renames the heading `Example:` before a docstring is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called once for every object that the site may show."""
        if obj.docstring:
            obj.docstring.value = re.sub(
                r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE
            )
