from tests.alerts.scene import scene  # noqa: F401
from tests.cast import cast  # noqa: F401
