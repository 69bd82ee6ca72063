from tests.cast import cast  # noqa: F401
from tests.providers.answering import answering  # noqa: F401
