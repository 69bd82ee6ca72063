from tests.cast import cast, quick_passwords
from tests.providers.answering import answering

__all__ = ["answering", "cast", "quick_passwords"]
