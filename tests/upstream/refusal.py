"""Why a vendor refuses a request; how it says so is the dialect's."""

from enum import Enum, auto


class Reason(Enum):
    """What is wrong, in no vendor's words."""

    MISSING_KEY = auto()
    WRONG_KEY = auto()
    RATE_LIMITED = auto()
    OVERLOADED = auto()
    SERVER_ERROR = auto()
    UNKNOWN_MODEL = auto()
    UNKNOWN_PATH = auto()
    BROKEN_BODY = auto()
    INVALID_REQUEST = auto()


class RefusalError(Exception):
    """A request is refused.

    Attributes:
        reason: Why.
        detail: What the vendor's message is about: the key, the model, the path, or for
            an invalid request the whole message.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        """Refuse for a reason."""
        super().__init__(reason.name)
        self.reason = reason
        self.detail = detail


# What a model's name asks for; the names are the same at all three vendors.
REFUSING_MODELS = {
    "rate-limited": Reason.RATE_LIMITED,
    "overloaded": Reason.OVERLOADED,
    "server-error": Reason.SERVER_ERROR,
}
BREAKING_MODEL = "breaks-off"
