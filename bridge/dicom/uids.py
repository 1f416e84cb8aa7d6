"""What is taken for the UID of a study, series or instance."""

from __future__ import annotations

import re
from typing import Final

from bridge.dicom.transfer_syntaxes import is_uid

PATTERN: Final = r"[0-9.]{1,64}|[0-9A-Fa-f]{16,64}"
_HASH: Final = re.compile(r"[0-9A-Fa-f]{16,64}")


def identifies(text: str) -> bool:
    """Whether a text can name a study, series or instance: a UID (PS3.5 section 9), or a hexadecimal hash.

    Some de-identifiers write a hash where the UID was. It breaks PS3.5, is common in research archives, and is as good
    a name as any; other text is refused.
    """
    return is_uid(text) or _HASH.fullmatch(text) is not None
