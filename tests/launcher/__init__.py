"""Starting Python processes quickly: ``start`` and ``run`` take the place of ``subprocess`` for ``python ...`` commands.

Three quarters of what a start costs is loading packages. A launcher has loaded those that read no settings, forks for
each start, and what it forked becomes the process that was asked for: environment, directory, arguments, streams, a
session of its own, its own process id and exit status. One launcher serves one process of pytest and ends with it. Those
of processes that are forked from one are forked from one as well (``prepare``).

Processes of the product are forked from launchers that have Django set up and its apps loaded as well (``product.py``): of the
settings nothing is kept, a launched process reads its own.

A start is a real one (fork and exec) where the difference could be seen: another program, options of the interpreter, a
variable in the environment that a package looked at while it was loaded, a system other than Linux. Whoever tests
starting itself (its memory, what is imported, the way a README shows) uses ``subprocess``.
"""

from tests.launcher.client import Started, prepare, run, start

__all__ = ["Started", "prepare", "run", "start"]
