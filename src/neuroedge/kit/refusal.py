"""How pure code says that what it was given will not do, so that an engine can tell its caller."""


class Refused(ValueError):
    """Input of the right form from which the answer cannot be had; `hint` says what would help."""

    def __init__(self, detail: str, *, hint: str) -> None:
        super().__init__(detail)
        self.hint = hint
