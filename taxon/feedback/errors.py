"""Why something was not kept. Nothing of it was written then."""


class StoreError(Exception):
    """The store cannot be used: its folder, its index or its key; the message says why and what to do."""


class StoreFullError(StoreError):
    """There is no room: the disk is full, or the store holds as much as it may."""


class TooMuchSaidError(Exception):
    """A contributor has said as much in this hour as one may."""

    def __init__(self, max_count: int, retry_s: float) -> None:
        super().__init__(f"this contributor has sent {max_count} in this hour already; wait, then go on")
        self.max_count = max_count
        self.retry_s = retry_s


class ReviewError(Exception):
    """A picture of which this cannot be decided; the message says why."""
