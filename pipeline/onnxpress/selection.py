"""Which nodes a step may touch: the ``include`` and ``exclude`` that its options share."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _regular_expression(value: str | None) -> str | None:
    if value is not None:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression ({error})") from error
    return value


RegularExpression = Annotated[str | None, AfterValidator(_regular_expression)]


class NodeSelection(BaseModel):
    """Options of a step that can be limited to some nodes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    include: RegularExpression = None
    """Regular expression: only nodes whose name matches are changed."""
    exclude: RegularExpression = None
    """Regular expression: nodes whose name matches stay as they are."""

    def selects(self, name: str) -> bool:
        """Tell whether include and exclude let a node of this name be changed."""
        if self.include is not None and not re.search(self.include, name):
            return False
        return self.exclude is None or not re.search(self.exclude, name)
