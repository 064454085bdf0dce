"""Which nodes a step may touch: the ``include`` and ``exclude`` that its options share."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, field_validator


class NodeSelection(BaseModel):
    """Options of a step that can be limited to some nodes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    include: str | None = None
    """Regular expression: only nodes whose name matches are changed."""
    exclude: str | None = None
    """Regular expression: nodes whose name matches stay as they are."""

    @field_validator("include", "exclude")
    @classmethod
    def _regular_expression(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"{value!r} is no regular expression ({error})") from error
        return value

    def selects(self, name: str) -> bool:
        """Tell whether include and exclude let a node of this name be changed."""
        if self.include is not None and not re.search(self.include, name):
            return False
        return self.exclude is None or not re.search(self.exclude, name)
