from tests.cast import quick_passwords  # noqa: F401
from tests.console.world import world  # noqa: F401
