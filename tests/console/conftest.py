from tests.cast import cast, quick_passwords
from tests.console.world import world

__all__ = ["cast", "quick_passwords", "world"]
